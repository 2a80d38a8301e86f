"""Easy consistency tuning on 8x8 digits, minutes on a laptop.

python jobs/ect_digits.py --teacher edm_digits
"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "ect_digits")
