"""Draw images from a trained model.   python jobs/sample.py models:/cm_ray-digits@champion --nfe 2"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("sample")
