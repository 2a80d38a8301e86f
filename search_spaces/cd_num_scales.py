"""Figure 3 c: the number of scales N.   python jobs/sweep.py cd_num_scales --teacher RUN"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="How many scales serve consistency distillation with Heun's solver on CIFAR-10?",
    base=recipes.cd_cifar10(),
    space={"times.scales.n": Categorical([18, 9, 12, 36, 50, 60, 80, 120])},  # 18 is the paper's
    sampler="grid",
    lines=("times.scales.n",),
)
