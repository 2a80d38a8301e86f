"""All of consistency distillation's choices at once.   python jobs/sweep.py cd_all --teacher RUN"""

from cm_ray import recipes
from cm_ray.sweeps.space import Categorical, Float, Int, Space, When

SPACE = Space(
    question="Consistency distillation on CIFAR-10: distance, solver, N, weight, target and step size",
    base=recipes.cd_cifar10(),
    space={
        "distance.name": Categorical(["lpips", "pseudo-huber", "l1", "l2"]),
        "distance.c": When({"distance.name": ("pseudo-huber",)}, Float(1e-3, 0.3, log=True)),
        "teacher.solver": Categorical(["heun", "euler"]),
        "schedule.s1": Int(9, 119, log=True),  # N - 1
        "schedule.mu0": Categorical([0.0, 0.9, 0.95, 0.99]),
        "schedule.weight": Categorical(["uniform", "inverse-gap", "karras"]),
        "optimizer.learning_rate": Float(5e-5, 2e-3, log=True),
    },
    trials=60,
)
