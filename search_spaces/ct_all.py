"""All choices of consistency training at once.   python jobs/sweep.py ct_all"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Float, Int, Named, Space

SPACE = Space(
    question="Consistency training on CIFAR-10: distance, schedules, proposal, weight and step size",
    base=recipes.ct_cifar10(),
    space={
        "distance": Categorical(["lpips", "pseudo-huber", "l1", "l2"]),
        "distance.c": Float(1e-3, 0.3, log=True),
        "schedules": Named(
            {
                "adaptive N and mu": {"times.scales": "adaptive", "target": "adaptive"},
                "adaptive N": {"times.scales": "adaptive", "target": "constant"},
                "doubling N": {"times.scales": "doubling", "target": "constant"},
                "constants": {"times.scales": "constant", "target": "constant"},
            }
        ),
        "times.scales.s0": Int(2, 20, log=True),
        "times.scales.s1": Int(20, 1280, log=True),
        "times.scales.n": Int(21, 1281, log=True),
        "target.mu0": Float(0.5, 0.999),
        "target.mu": Categorical([0.0, 0.9, 0.99, 0.999]),
        "times.proposal": Categorical(["uniform", "lognormal"]),
        "times.proposal.mean": Float(-2.0, 0.0),
        "times.proposal.std": Float(1.0, 3.0),
        "weight": Categorical(["uniform", "inverse-gap"]),
        "optimizer.learning_rate": Float(5e-5, 2e-3, log=True),
    },
    trials=100,
)
