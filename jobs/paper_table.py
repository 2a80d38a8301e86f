"""Table 1 and figure 4 of the paper for one data set.   python jobs/paper_table.py

Trains a teacher (EDM), distils it (CD, PD), trains without it (CT, iCT), or tunes it (ECT), and scores all of
them at 1, 2, 4 and 8 network evaluations: table.md, table.csv, table.png in --run-dir, and nested runs in
MLflow. Up to 25 minutes for digits on two CPU cores; the same command goes on after an interruption.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.cluster.paper_table import DEFAULT, Method, Table, make_table
from cm_ray.command_line.options import parse_changes, run_job
from cm_ray.runs.directory import default_run_dir


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """Which data, and where to."""

    data: Literal["digits", "cifar10"] = "digits"
    """Whose recipes; those of cifar10 are the paper's, for GPUs and days."""
    methods: tuple[Method, ...] = DEFAULT
    """Which methods; the teacher, edm, is always there."""
    run_dir: str = ""
    """Where the table and the runs go; empty: $CM_RAY_RUNS or ./runs, and paper_table."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting to change in all runs, PATH=VALUE, such as cluster.num_workers=2; can be repeated."""
    tracking_uri: str = ""
    """MLflow server or store; empty: mlflow.db beside the run directory; none: do not track."""


def run(args: PaperTable) -> None:
    """Make the table and show it."""
    table = Table(
        folder=Path(args.run_dir).absolute() if args.run_dir else default_run_dir("paper_table"),
        data=args.data,
        changes=parse_changes(args.set),
        methods=args.methods,
        tracking_uri=args.tracking_uri,
    )
    files = make_table(table)
    print(files[0].read_text())
    print("\n".join(map(str, files)))


if __name__ == "__main__":
    run_job(PaperTable, run, __doc__ or "")
