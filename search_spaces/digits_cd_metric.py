"""Figure 3 a on the 8x8 digits.   python jobs/sweep.py digits_cd_metric --teacher runs/edm_digits"""

from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="Which distance serves consistency distillation on digits?",
    base=override(
        recipes.cd_digits(),
        {"steps": 500, "checkpoint.every": 50, "evaluation.every": 50, "evaluation.samplers": ("one-step",)},
    ),
    space={"distance": Categorical(["pseudo-huber", "l1", "l2", "norm"])},  # 8x8 is too small for lpips
    sampler="grid",
    seeds=3,
    lines=("distance",),
)
