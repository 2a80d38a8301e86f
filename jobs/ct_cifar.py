"""Consistency training on CIFAR-10.   ray job submit --working-dir . -- python jobs/ct_cifar.py"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "ct_cifar10")
