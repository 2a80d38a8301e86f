"""Send a run to MLflow after the server was away.   python jobs/track.py runs/demo"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("track")
