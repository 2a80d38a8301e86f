"""Progressive distillation on CIFAR-10.

ray job submit --working-dir . -- python jobs/pd_cifar.py --teacher edm_cifar10
"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "pd_cifar10")
