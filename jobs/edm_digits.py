"""EDM training of a teacher on 8x8 digits, minutes on a laptop.   python jobs/edm_digits.py"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "edm_digits")
