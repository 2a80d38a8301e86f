"""Table 1 and figure 4 of the paper for one data set.   python jobs/paper_table.py

Trains a teacher (EDM), distils it (CD, PD), tunes it (ECT), trains without it (CT, iCT), and scores all of
them at 1, 2, 4 and 8 network evaluations: table.md, table.csv, table.png in --run-dir, and nested runs in
MLflow. About 20 minutes for digits on two CPU cores; the same command goes on after an interruption.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cm_ray.cluster.paper_table import METHODS, Method, Table, make_table, parse_changes
from cm_ray.command_line import run_job


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """Which data, and where to."""

    data: Literal["digits", "cifar10"] = "digits"
    """Whose recipes; those of cifar10 have no feature extractor yet and are refused."""
    methods: tuple[Method, ...] = METHODS
    """Which methods; the teacher, edm, is always there."""
    run_dir: Path = Path("runs/paper_table")
    """Where the table and the runs go."""
    set: tuple[str, ...] = ()
    """Settings to change in all runs, path=value, such as cluster.num_workers=2 seed=1."""
    tracking_uri: str = ""
    """MLflow server or store; empty: mlflow.db beside the run directory; none: do not track."""


def run(args: PaperTable) -> None:
    """Make the table and show it."""
    table = Table(
        folder=args.run_dir.absolute(),
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
