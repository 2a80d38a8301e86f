"""The choices of improved consistency training, on the 8x8 digits.   python jobs/sweep.py digits_ict"""

from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Float, Int, Space

SPACE = Space(
    question="Improved consistency training on digits: c, s0, s1, proposal and step size",
    base=override(
        recipes.ict_digits(),
        {
            "steps": 600,
            "batch_size": 64,
            "checkpoint.every": 100,
            "evaluation.every": 100,
            "evaluation.samplers": ("one-step",),
        },
    ),
    space={
        "distance.c": Float(1e-4, 1.0, log=True),
        "times.scales.s0": Int(2, 20, log=True),
        "times.scales.s1": Int(20, 160, log=True),
        "times.proposal.mean": Float(-2.0, 0.0),
        "times.proposal.std": Float(1.0, 3.0),
        "optimizer.learning_rate": Float(5e-4, 1e-2, log=True),
    },
    first={"distance.c": 0.00432},  # 0.00054 sqrt(64), which the recipe's 0 stands for
    trials=20,
)
