"""Figure 3 d: schedules N(k) and mu(k), or constants.   python jobs/sweep.py ct_schedule"""

from cm_ray import recipes
from cm_ray.sweeps.space import Float, Int, Named, Space

SPACE = Space(
    question="Consistency training on CIFAR-10: adaptive N(k) and mu(k), or constants?",
    base=recipes.ct_cifar10(),
    space={
        "schedules": Named(
            {
                "adaptive N and mu": {"times.scales": "adaptive", "target": "adaptive"},
                "adaptive N": {"times.scales": "adaptive", "target": "constant"},
                "constants": {"times.scales": "constant", "target": "constant"},
            }
        ),
        "times.scales.s0": Int(2, 20, log=True),
        "times.scales.s1": Int(20, 300, log=True),
        "times.scales.n": Int(21, 301, log=True),
        "target.mu0": Float(0.8, 0.9999),
        "target.mu": Float(0.8, 0.9999),
    },
    trials=40,
    lines=("schedules",),
)
