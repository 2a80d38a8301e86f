"""The choices of sCM (Lu & Song 2024), trained without a teacher.   python jobs/sweep.py scm"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Float, Int, Space

SPACE = Space(
    question="sCT on CIFAR-10: the times, the warm-up, c and norm of the tangent, dropout and step size",
    base=recipes.sct_cifar10(),
    space={
        "times.mean": Float(-1.5, 0.0),
        "times.std": Float(1.0, 2.0),
        "warmup": Int(0, 20_000),
        "constant": Float(0.01, 1.0, log=True),
        "norm": Categorical(["sum", "mean"]),
        "network.dropout": Float(0.0, 0.3),
        "optimizer.learning_rate": Float(3e-5, 1e-3, log=True),
    },
    trials=60,
)
