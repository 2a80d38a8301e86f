"""Settings of the command that makes the paper's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cm_ray.own_code import CodeSettings

Method = Literal["edm", "cd", "pd", "ect", "ct", "ict"]
DEFAULT: tuple[Method, ...] = ("edm", "cd", "pd", "ct", "ict")
"""Methods of the table where none are named."""


@dataclass(frozen=True, kw_only=True)
class PaperTable(CodeSettings):
    """Make table 1 and figure 4 of the paper for one data set: cm-ray paper-table

    Trains a teacher (EDM), distils it (CD, PD), trains without it (CT, iCT), or tunes it (ECT), and scores
    all of them at 1, 2, 4 and 8 network evaluations: table.md, table.csv, table.png in --run-dir, and nested
    runs in MLflow. Up to 25 minutes for digits on two CPU cores; the same command goes on after an
    interruption.
    """

    data: Literal["digits", "cifar10"] = "digits"
    """Data of the recipes; those of cifar10 are the paper's, for GPUs and days."""
    methods: tuple[Method, ...] = DEFAULT
    """Methods of the table; the teacher, edm, is always there."""
    run_dir: str = ""
    """Directory of the table and the runs; empty: $CM_RAY_RUNS or ./runs, and paper_table."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting to change in all runs, PATH=VALUE, such as cluster.num_workers=2; can be repeated."""
    tracking_uri: str = ""
    """MLflow server or store; empty: mlflow.db beside the run directory; none: do not track."""
