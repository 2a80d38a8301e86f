"""Figure 3 a: distances of consistency distillation.   python jobs/sweep.py cd_metric --teacher RUN"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="Which distance serves consistency distillation on CIFAR-10?",
    base=recipes.cd_cifar10(),
    space={"distance": Categorical(["lpips", "l1", "l2"])},
    sampler="grid",
    lines=("distance",),
)
