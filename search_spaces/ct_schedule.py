"""Figure 3 d: schedules N(k) and mu(k), or constants?   python jobs/sweep.py ct_schedule"""

from cm_ray import recipes
from cm_ray.sweeps.space import Float, Int, Named, Space, When

SPACE = Space(
    question="Consistency training on CIFAR-10: adaptive N(k) and mu(k), or constants?",
    base=recipes.ct_cifar10(),
    space={
        "schedules": Named(
            {
                "adaptive N and mu": {"schedule.scales": "adaptive", "schedule.target": "adaptive"},
                "adaptive N": {"schedule.scales": "adaptive", "schedule.target": "constant"},
                "constants": {"schedule.scales": "constant", "schedule.target": "constant"},
            }
        ),
        "schedule.s0": When({"schedules": ("adaptive N and mu", "adaptive N")}, Int(2, 20, log=True)),
        "schedule.s1": Int(20, 300, log=True),  # constant: N - 1
        "schedule.mu0": Float(0.8, 0.9999),
    },
    trials=40,
    first={"schedules": "adaptive N and mu"},
    lines=("schedules",),
)
