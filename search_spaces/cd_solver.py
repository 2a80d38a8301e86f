"""Figure 3 b: Euler's or Heun's step of the teacher.   python jobs/sweep.py cd_solver --teacher RUN"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="Which solver, at which N, serves consistency distillation on CIFAR-10?",
    base=recipes.cd_cifar10(),
    space={
        "solver": Categorical(["heun", "euler"]),
        "times.scales.n": Categorical([18, 12, 36, 60]),  # 18 is the paper's
    },
    sampler="grid",
    lines=("solver", "times.scales.n"),
)
