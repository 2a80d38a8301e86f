"""Find the time points of multistep sampling.   python jobs/time_points.py runs/demo --steps 4

Searches the times between steps by Fréchet distance, on Ray: for 2 evaluations, then 3 … up to --steps.
Writes a table, a plot with every evaluation, an MLflow run, and the points into the model: from then on
`jobs/sample.py --steps 2` takes them. The same command goes on after an interruption, repeating nothing.
"""

from cm_ray.cluster.time_points.find import find_time_points
from cm_ray.cluster.time_points.point_plan import TimePointSearch
from cm_ray.command_line.options import run_job


def run(settings: TimePointSearch) -> None:
    """Search, and show what was found."""
    directory = find_time_points(settings)
    print((directory.root / "time_points.md").read_text())
    for path in (*sorted(directory.root.glob("time_points.*")), *sorted(directory.samples.glob("*.png"))):
        print(path)


if __name__ == "__main__":
    run_job(TimePointSearch, run, __doc__ or "")
