"""Easy consistency tuning on 8x8 digits, minutes on a laptop.

python jobs/ect_digits.py --teacher edm_digits
"""

from cm_ray import presets
from cm_ray.cluster.train import train
from cm_ray.command_line import run_training

if __name__ == "__main__":
    run_training(presets.ect_digits(), train, __doc__ or "")
