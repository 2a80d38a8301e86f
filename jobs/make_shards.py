"""Turn images into shards.   python jobs/make_shards.py cifar10 --out data/cifar10"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("shards")
