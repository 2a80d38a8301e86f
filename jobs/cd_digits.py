"""Consistency distillation on 8x8 digits, minutes on a laptop.

python jobs/cd_digits.py --teacher edm_digits
"""

from cm_ray import recipes
from cm_ray.cluster.train.run import train
from cm_ray.command_line.options import run_training

if __name__ == "__main__":
    run_training(recipes.cd_digits(), train, __doc__ or "")
