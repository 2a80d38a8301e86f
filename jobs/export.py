"""Write a model for other tools.   python jobs/export.py runs/demo --format diffusers --out demo"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("export")
