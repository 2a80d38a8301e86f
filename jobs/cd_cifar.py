"""Consistency distillation on CIFAR-10.

ray job submit --working-dir . -- python jobs/cd_cifar.py --teacher edm_cifar10
"""

from cm_ray import recipes
from cm_ray.cluster.train.run import train
from cm_ray.command_line.options import run_training

if __name__ == "__main__":
    run_training(recipes.cd_cifar10(), train, __doc__ or "")
