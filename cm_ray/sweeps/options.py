"""Settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cm_ray.errors import UserError, setting
from cm_ray.own_code import CodeSettings


@dataclass(frozen=True, kw_only=True)
class Sweep(CodeSettings):
    """Search for settings with Ray Tune and Optuna: cm-ray sweep digits_ct_schedule

    SPACE is the name of a search space of cm_ray, or a file of your own: what may change, and which score
    decides. Trials run on the cluster side by side, each from data to scores; those that fall behind are
    stopped early. The study, runs, pictures and the report are in the run directory, and in MLflow. The same
    command goes on after an interruption, and --trials with a greater number goes on with a finished sweep.
    """

    space: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SPACE")]
    """Name of a search space of cm_ray, or path of a Python file with a SPACE."""
    trials: int = 0
    """Settings to try, those of earlier calls among them; 0: the space's own number. More than before go on
    with a finished sweep."""
    seeds: int = 0
    """Trainings of each setting, whose mean score counts; 0: the space's own number."""
    searcher: Literal["", "tpe", "gp", "random", "grid", "nsga2"] = ""
    """Optuna's sampler, which chooses the settings of the trials; empty: the space's own."""
    scheduler: Literal["", "asha", "none"] = ""
    """asha stops trials whose scores are behind; empty: asha, but none for two objectives and for gp, which
    learns from finished trials alone."""
    grace: int = 0
    """Steps that every trial is given before it may be stopped; 0: the space's own number."""
    reduction: int = 3
    """asha lets one in so many go on at each rung."""
    concurrent: int = 0
    """Trials at once; 0: as many as the free GPUs, or cores, have room for."""
    retries: int = 1
    """Number of times that a trial whose process fails is tried again."""
    seed: int = 0
    """Seed of the choice of settings."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting to change in all trials, PATH=VALUE, such as steps=1000; can be repeated."""
    teacher: str = ""
    """The model that is distilled: short for --set teacher.model=…"""
    study: str = ""
    """Name of the study; empty: that of the run directory."""
    storage: str = ""
    """Storage of the study: sqlite:////path/study.db, postgresql://…, journal:/path/file; empty: study.db
    in the run directory."""
    run_dir: str = ""
    """Directory of everything that is written; the same command goes on from there. Empty: $CM_RAY_RUNS or
    ./runs, and sweep-SPACE."""
    tracking_uri: str = ""
    """MLflow server or store; empty: mlflow.db beside the run directory; none: do not track."""

    def __post_init__(self) -> None:
        """Raise UserError, naming the option, on a number that is out of its range."""
        least = {
            "trials": 0,
            "seeds": 0,
            "grace": 0,
            "reduction": 2,
            "concurrent": 0,
            "retries": 0,
            "seed": 0,
        }
        for name, low in least.items():
            if (number := getattr(self, name)) < low:
                raise UserError(f"{setting(name)} must be at least {low}, not {number}.")
