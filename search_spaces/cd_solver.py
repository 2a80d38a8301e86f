"""Figure 3 b: Euler's or Heun's step of the teacher?   python jobs/sweep.py cd_solver --teacher RUN"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Space

SPACE = Space(
    question="Which solver, at which N, serves consistency distillation on CIFAR-10?",
    base=recipes.cd_cifar10(),
    space={
        "teacher.solver": Categorical(["heun", "euler"]),
        "schedule.s1": Categorical([17, 11, 35, 59]),  # N - 1: N = 18 is the paper's
    },
    sampler="grid",
    lines=("teacher.solver", "schedule.s1"),
)
