"""Two objectives on the 8x8 digits, score and training cost.   python jobs/sweep.py digits_fast_and_good"""

from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Categorical, Float, Int, Space

SPACE = Space(
    question="Improved consistency training on digits: how good for how many operations?",
    base=override(
        recipes.ict_digits(),
        {"network.head_channels": 8, "evaluation.every": 0, "evaluation.samplers": ("one-step",)},
    ),
    space={
        "network.channels": Categorical([32, 16, 24]),
        "batch_size": Categorical([128, 32, 64]),
        "steps": Int(100, 900, step=100),
        "optimizer.learning_rate": Float(5e-4, 1e-2, log=True),
    },
    minimize=("score", "cost"),
    sampler="nsga2",
    trials=24,
)
