"""Improved consistency training on 8x8 digits, minutes on a laptop.   python jobs/ict_digits.py"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "ict_digits")
