"""Serve a model over HTTP by Ray Serve.   python jobs/serve.py models:/cm_ray-digits@champion"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("serve")
