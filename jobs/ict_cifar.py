"""Improved consistency training on CIFAR-10.   ray job submit --working-dir . -- python jobs/ict_cifar.py"""

from cm_ray import presets
from cm_ray.cluster.train import train
from cm_ray.command_line import run_training

if __name__ == "__main__":
    run_training(presets.ict_cifar10(), train, __doc__ or "")
