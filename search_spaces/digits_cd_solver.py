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
        "teacher.solver": Categorical(["heun", "euler"]),
        "schedule.s1": Categorical([17, 8, 35]),  # N - 1
    },
    sampler="grid",
    seeds=3,
    lines=("teacher.solver", "schedule.s1"),
)
