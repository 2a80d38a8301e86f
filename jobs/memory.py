"""Estimate the memory of a training.   python jobs/memory.py ct_imagenet64 --gib 40"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("memory")
