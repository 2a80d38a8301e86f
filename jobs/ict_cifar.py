"""Improved consistency training on CIFAR-10.   ray job submit --working-dir . -- python jobs/ict_cifar.py"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "ict_cifar10")
