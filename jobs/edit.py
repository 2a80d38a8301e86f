"""Edit images with a trained model.   python jobs/edit.py upscale --model runs/demo --image a.png

Song et al. 2023, Algorithm 4: no model was trained for any of it. Writes --out/grid.png, a row
of before, results and the image given for the first ten images, and every result as a PNG file.
"""

from cm_ray.cluster.edit.edit_files import edit
from cm_ray.cluster.edit.edit_plan import Editing
from cm_ray.command_line.options import run_job


def run(settings: Editing) -> None:
    """Edit, and say where the results are."""
    grid, *results = edit(settings)
    print(grid)
    print(f"{results[0]} and {len(results) - 1} more" if len(results) > 1 else results[0])


if __name__ == "__main__":
    run_job(Editing, run, __doc__ or "")
