"""Consistency training on CIFAR-10.   ray job submit --working-dir . -- python jobs/ct_cifar.py"""

from cm_ray import recipes
from cm_ray.cluster.train.run import train
from cm_ray.command_line.options import run_training

if __name__ == "__main__":
    run_training(recipes.ct_cifar10(), train, __doc__ or "")
