"""Choose the length of a run's average after its training.   python jobs/averages.py runs/demo"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("averages")
