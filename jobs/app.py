"""Show a page to try a model in the browser.   python jobs/app.py models:/cm_ray-digits@champion"""

from cm_ray.command_line.main import job

if __name__ == "__main__":
    job("app")
