"""Train any preset.   python jobs/train.py ct_imagenet64 --data /data/imagenet --num-workers 8"""

from cm_ray.cluster.train.run import train
from cm_ray.command_line.options import run_training

if __name__ == "__main__":
    run_training(None, train, __doc__ or "")
