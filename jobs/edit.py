"""Edit images with a trained model.   python jobs/edit.py upscale --model runs/demo --image a.png"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("edit")
