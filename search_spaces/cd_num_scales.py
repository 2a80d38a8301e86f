"""Figure 3 c: how many scales N serve distillation?   python jobs/sweep.py cd_num_scales --teacher RUN"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="How many scales serve consistency distillation with Heun's solver on CIFAR-10?",
    base=recipes.cd_cifar10(),
    space={"schedule.s1": Categorical([17, 8, 11, 35, 49, 59, 79, 119])},  # N - 1: N = 18 is the paper's
    sampler="grid",
    lines=("schedule.s1",),
)
