"""The choices of MeanFlow (Geng et al. 2025).   python jobs/sweep.py meanflow"""

from cm_ray import recipes
from cm_ray.sweeps.space import Float, Space

SPACE = Space(
    question="MeanFlow on CIFAR-10: the times, the share that are apart, p, c, dropout and step size",
    base=recipes.meanflow_cifar10(),
    space={
        "times.mean": Float(-2.5, 0.0),
        "times.std": Float(0.8, 2.5),
        "times.apart": Float(0.1, 1.0),
        "distance.p": Float(0.0, 1.0),
        "distance.c": Float(1e-4, 1.0, log=True),
        "network.dropout": Float(0.0, 0.3),
        "optimizer.learning_rate": Float(1e-4, 2e-3, log=True),
    },
    trials=60,
)
