"""Figure 3 d on the 8x8 digits: schedules N(k) and mu(k) of consistency training, or constants.

python jobs/sweep.py digits_ct_schedule     # up to 20 minutes on two CPU cores
"""

from cm_ray import recipes
from cm_ray.core.schedules import Adaptive, AdaptiveDecay, Constant, ConstantDecay
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Named, Space

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
                    f"N(k) to {s1}, {name}": {"times.scales": Adaptive(s0=2, s1=s1), "target": target}
                    for name, target in {
                        "mu(k)": AdaptiveDecay(mu0=0.9),
                        "mu = 0": ConstantDecay(mu=0.0),
                    }.items()
                    for s1 in (10, 20)
                },
                **{
                    f"N = {n}, mu = {mu:g}": {"times.scales": Constant(n), "target": ConstantDecay(mu)}
                    for mu in (0.0, 0.9, 0.99)
                    for n in (5, 9, 17)
                },
            }
        )
    },
    sampler="grid",
    seeds=3,
    grace=100,
    lines=("schedule",),
)
