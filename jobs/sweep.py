"""Search for settings with Ray Tune and Optuna.   python jobs/sweep.py digits_ct_schedule"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("sweep")
