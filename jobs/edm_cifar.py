"""EDM training of a teacher on CIFAR-10.   ray job submit --working-dir . -- python jobs/edm_cifar.py"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "edm_cifar10")
