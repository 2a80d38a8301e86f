"""Score a model, or any images, against a data set.   python jobs/evaluate.py runs/demo"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("score")
