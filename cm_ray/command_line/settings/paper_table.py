"""Settings of the command that makes the paper's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cm_ray.own_code import CodeSettings

Method = Literal[
    "edm", "trigflow", "edm2", "cd", "pd", "ect", "ct", "ict", "tcm", "sct", "scd", "meanflow", "shortcut",
    "ncsn", "ncsnv2", "ve", "vp", "subvp",
]  # fmt: skip
DEFAULT: tuple[Method, ...] = ("edm", "cd", "pd", "ct", "ict")
"""Methods of the table where none are named."""


@dataclass(frozen=True, kw_only=True)
class PaperTable(CodeSettings):
    """Make table 1 and figure 4 of the paper for one data set: cm-ray paper-table

    Trains diffusion models, distils and tunes them, and trains without them, and scores all at 1, 2, 4 and 8
    network evaluations, and with their own samplers: table.md, table.csv, table.png in --run-dir, and nested
    runs in MLflow. Up to 25 minutes for the default methods on digits and two CPU cores; the same command
    goes on after an interruption, and with more methods or seeds.
    """

    data: Literal["digits", "cifar10"] = "digits"
    """Data of the recipes; those of cifar10 are the paper's, for GPUs and days."""
    methods: tuple[Method, ...] = DEFAULT
    """Methods of the table, and those that they start from: edm for cd, pd and ect, ict for tcm, trigflow for
    scd."""
    seeds: int = 1
    """Trainings of every method, whose mean and standard error are shown; 1: with the error over samples."""
    run_dir: str = ""
    """Directory of the table and the runs; empty: $CM_RAY_RUNS or ./runs, and paper_table."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting to change in all runs, PATH=VALUE, such as cluster.num_workers=2; can be repeated."""
    tracking_uri: str = ""
    """MLflow server or store; empty: mlflow.db beside the run directory; none: do not track."""
