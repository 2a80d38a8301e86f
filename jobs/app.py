"""Try a model in the browser: sample, edit, watch.   python jobs/app.py models:/cm_ray-digits@champion

Needs Gradio: pip install 'cm_ray[app]'. Listens on 127.0.0.1 unless told otherwise.
"""

from cm_ray.command_line.options import run_job
from cm_ray.page.server import PageSettings, serve

if __name__ == "__main__":
    run_job(PageSettings, serve, __doc__ or "")
