"""Figure 3 d on the 8x8 digits: do schedules N(k) and mu(k) serve consistency training better than constants?

python jobs/sweep.py digits_ct_schedule     # up to 20 minutes on two CPU cores
"""

from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Named, Space

_NO_TARGET = {"schedule.target": "constant", "schedule.mu0": 0.0}


def _adaptive(s1: int, decay: str) -> dict[str, object]:
    """Return a growing N with the paper's mu(k), which grows along, or with mu = 0."""
    target = {"schedule.target": "adaptive"} if decay == "mu(k)" else _NO_TARGET
    return {"schedule.scales": "adaptive", "schedule.s0": 2, "schedule.s1": s1, **target}


def _constant(num_scales: int, decay: float) -> dict[str, object]:
    """Return N and mu that do not change: N boundaries are s1 + 1."""
    return {
        "schedule.scales": "constant",
        "schedule.target": "constant",
        "schedule.s1": num_scales - 1,
        "schedule.mu0": decay,
    }


SPACE = Space(
    question="Consistency training on digits: adaptive N(k) and mu(k), or constants?",
    base=override(
        recipes.ct_digits(),
        {
            "steps": 400,
            "batch_size": 32,
            "checkpoint.every": 50,
            "evaluation.every": 50,
            "evaluation.samples": 1000,
            "evaluation.samplers": ("one-step",),
        },
    ),
    space={
        "schedule": Named(
            {
                **{
                    f"N(k) to {s1}, {decay}": _adaptive(s1, decay)
                    for decay in ("mu(k)", "mu = 0")
                    for s1 in (10, 20)
                },
                **{
                    f"N = {num_scales}, mu = {decay:g}": _constant(num_scales, decay)
                    for decay in (0.0, 0.9, 0.99)
                    for num_scales in (5, 9, 17)
                },
            }
        )
    },
    first={"schedule": "N(k) to 10, mu(k)"},
    sampler="grid",
    seeds=3,
    grace=100,
    lines=("schedule",),
)
