"""Consistency training on 8x8 digits, minutes on a laptop.   python jobs/ct_digits.py"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train", "ct_digits")
