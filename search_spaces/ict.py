"""The choices of improved consistency training (Song & Dhariwal 2023).   python jobs/sweep.py ict"""

from cm_ray import recipes
from cm_ray.sweeps.space import Float, Int, Space

SPACE = Space(
    question="Improved consistency training on CIFAR-10: c, s0, s1, proposal, dropout and step size",
    base=recipes.ict_cifar10(),
    space={
        "distance.c": Float(1e-3, 0.3, log=True),
        "times.scales.s0": Int(2, 40, log=True),
        "times.scales.s1": Int(40, 1280, log=True),
        "times.proposal.mean": Float(-2.0, 0.0),
        "times.proposal.std": Float(1.0, 3.0),
        "network.dropout": Float(0.0, 0.4),
        "optimizer.learning_rate": Float(3e-5, 1e-3, log=True),
    },
    first={"distance.c": 0.03},  # 0.00054 sqrt(3072), which the recipe's 0 stands for
    trials=60,
)
