"""Search for settings: trials by Ray Tune and Optuna.   python jobs/sweep.py digits_ct_schedule

SPACE is a file of search_spaces/, or your own: what may change, and which score decides. Trials run on the
cluster side by side, each from data to scores; those that fall behind are stopped early. The study, runs,
pictures and the report are in the run directory, and in MLflow. The same command goes on after an
interruption, and --trials with a greater number goes on with a finished sweep.
"""

from cm_ray.cluster.sweep.run_sweep import sweep
from cm_ray.cluster.sweep.sweep_plan import Sweep
from cm_ray.command_line.options import parse_changes, run_job


def run(settings: Sweep) -> None:
    """Sweep, and show the report."""
    changes = parse_changes(settings.set)
    if settings.teacher:
        changes["teacher.model"] = settings.teacher
    report = sweep(settings, changes).root / "report.md"
    print(report.read_text())
    print(report)


if __name__ == "__main__":
    run_job(Sweep, run, __doc__ or "")
