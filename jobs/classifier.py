"""Train a classifier of noisy images.   python jobs/classifier.py runs/edm_digits --data digits"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("classifier")
