"""Two objectives, score and training cost.   python jobs/sweep.py fast_and_good"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Float, Int, Space

SPACE = Space(
    question="Improved consistency training on CIFAR-10: how good for how many operations?",
    base=recipes.ict_cifar10(),
    space={
        "network.channels": Categorical([128, 64, 96]),
        "network.blocks": Int(2, 4),
        "batch_size": Categorical([1024, 256, 512]),
        "steps": Int(50_000, 400_000, step=10_000),
        "optimizer.learning_rate": Float(5e-5, 1e-3, log=True),
    },
    minimize=("score", "cost"),
    sampler="nsga2",
    trials=60,
)
