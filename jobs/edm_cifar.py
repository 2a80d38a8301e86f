"""EDM training of a teacher on CIFAR-10.   ray job submit --working-dir . -- python jobs/edm_cifar.py"""

from cm_ray import recipes
from cm_ray.cluster.train.run import train
from cm_ray.command_line.options import run_training

if __name__ == "__main__":
    run_training(recipes.edm_cifar10(), train, __doc__ or "")
