"""All of consistency training's choices at once.   python jobs/sweep.py ct_all"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Float, Int, Named, Space, When

SPACE = Space(
    question="Consistency training on CIFAR-10: distance, schedules, proposal, weight and step size",
    base=recipes.ct_cifar10(),
    space={
        "distance.name": Categorical(["lpips", "pseudo-huber", "l1", "l2"]),
        "distance.c": When({"distance.name": ("pseudo-huber",)}, Float(1e-3, 0.3, log=True)),
        "schedules": Named(
            {
                "adaptive N and mu": {"schedule.scales": "adaptive", "schedule.target": "adaptive"},
                "adaptive N": {"schedule.scales": "adaptive", "schedule.target": "constant"},
                "doubling N": {"schedule.scales": "doubling", "schedule.target": "constant"},
                "constants": {"schedule.scales": "constant", "schedule.target": "constant"},
            }
        ),
        "schedule.s0": When(
            {"schedules": ("adaptive N and mu", "adaptive N", "doubling N")}, Int(2, 20, log=True)
        ),
        "schedule.s1": Int(20, 1280, log=True),
        "schedule.mu0": When({"schedules": ("adaptive N and mu",)}, Float(0.5, 0.999)),
        "target": When(
            {"schedules": ("adaptive N", "doubling N", "constants")},
            Named(
                {
                    "the student": {"schedule.mu0": 0.0},
                    "mu = 0.9": {"schedule.mu0": 0.9},
                    "mu = 0.99": {"schedule.mu0": 0.99},
                    "mu = 0.999": {"schedule.mu0": 0.999},
                }
            ),
        ),
        "schedule.proposal": Categorical(["uniform", "lognormal"]),
        "schedule.p_mean": When({"schedule.proposal": ("lognormal",)}, Float(-2.0, 0.0)),
        "schedule.p_std": When({"schedule.proposal": ("lognormal",)}, Float(1.0, 3.0)),
        "schedule.weight": Categorical(["uniform", "inverse-gap"]),
        "optimizer.learning_rate": Float(5e-5, 2e-3, log=True),
    },
    first={"schedules": "adaptive N and mu"},
    trials=100,
)
