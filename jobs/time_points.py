"""Find the time points of multistep sampling.   python jobs/time_points.py runs/demo --nfe 4"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("time-points")
