"""Figure 3 b on the 8x8 digits.   python jobs/sweep.py digits_cd_solver --teacher runs/edm_digits"""

from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="Which solver, at which N, serves consistency distillation on digits?",
    base=override(
        recipes.cd_digits(),
        {"steps": 500, "checkpoint.every": 50, "evaluation.every": 50, "evaluation.samplers": ("one-step",)},
    ),
    space={
        "solver": Categorical(["heun", "euler"]),
        "times.scales.n": Categorical([18, 9, 36]),
    },
    sampler="grid",
    seeds=3,
    lines=("solver", "times.scales.n"),
)
