"""Compute the likelihood of images under a diffusion model.   python jobs/likelihood.py runs/edm_digits"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("likelihood")
