"""Train any recipe.   python jobs/train.py ct_imagenet64 --data /data/imagenet --num-workers 8"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("train")
