"""All choices of consistency distillation at once.   python jobs/sweep.py cd_all --teacher RUN"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Float, Int, Space

SPACE = Space(
    question="Consistency distillation on CIFAR-10: distance, solver, N, weight, target and step size",
    base=recipes.cd_cifar10(),
    space={
        "distance": Categorical(["lpips", "pseudo-huber", "l1", "l2"]),
        "distance.c": Float(1e-3, 0.3, log=True),
        "solver": Categorical(["heun", "euler"]),
        "times.scales.n": Int(10, 120, log=True),
        "target.mu": Categorical([0.0, 0.9, 0.95, 0.99]),
        "weight": Categorical(["uniform", "inverse-gap", "karras"]),
        "optimizer.learning_rate": Float(5e-5, 2e-3, log=True),
    },
    trials=60,
)
