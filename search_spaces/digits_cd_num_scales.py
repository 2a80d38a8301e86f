"""Figure 3 c on the 8x8 digits.   python jobs/sweep.py digits_cd_num_scales --teacher runs/edm_digits"""

from cm_ray import recipes
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="How many scales serve consistency distillation with Heun's solver on digits?",
    base=override(
        recipes.cd_digits(),
        {"steps": 500, "checkpoint.every": 50, "evaluation.every": 50, "evaluation.samplers": ("one-step",)},
    ),
    space={"times.scales.n": Categorical([18, 5, 9, 12, 36, 80])},
    sampler="grid",
    seeds=3,
    lines=("times.scales.n",),
)
