"""What a sweep is asked for, and how much of the cluster each of its trials takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import ray
import tyro

from cm_ray.cluster.runtime.connect import Plan, node_resources, plan
from cm_ray.errors import UserError
from cm_ray.sweeps.space import Space


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What to search, and how."""

    space: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SPACE")]
    """A file of search_spaces/ by its name, or a file of your own with a SPACE."""
    trials: int = 0
    """Settings to try, those of earlier calls among them; 0: the space's own number. More than before go on
    with a finished sweep."""
    seeds: int = 0
    """Trainings of each setting, whose mean score counts; 0: the space's own number."""
    sampler: Literal["", "tpe", "gp", "random", "grid", "nsga2"] = ""
    """Who chooses settings; empty: the space's own."""
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
    """How often a trial whose process fails is tried again."""
    seed: int = 0
    """Of the choice of settings."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting to change in all trials, PATH=VALUE, such as steps=1000; can be repeated."""
    teacher: str = ""
    """The model that is distilled: short for --set teacher.model=…"""
    study: str = ""
    """Name of the study; empty: that of the run directory."""
    storage: str = ""
    """Where the study is kept: sqlite:////path/study.db, postgresql://…, journal:/path/file; empty: study.db
    in the run directory."""
    run_dir: str = ""
    """Where everything goes; the same command goes on from there. Empty: $CM_RAY_RUNS or ./runs, and
    sweep-SPACE."""
    tracking_uri: str = ""
    """MLflow server or store; empty: mlflow.db beside the run directory; none: do not track."""


def share(space: Space, wanted: int, left: int) -> tuple[int, Plan]:
    """Return how many trials run at once, and what a training takes of the cluster then.

    Raises UserError when not even one, or not the wanted number, has room.
    """
    nodes, free = node_resources(), ray.available_resources()
    use_gpu = plan(space.base.cluster, nodes).use_gpu  # all trials train on the same
    cluster = replace(space.base.cluster, use_gpu="yes" if use_gpu else "no")
    workers = cluster.num_workers
    room = max(1, int(free.get("GPU" if use_gpu else "CPU", 0)) // workers)
    for concurrent in [wanted] if wanted else range(min(left, room), 0, -1):
        try:
            return concurrent, plan(replace(cluster, num_workers=concurrent * workers), nodes)
        except UserError as error:
            refusal = error
    raise refusal


def check_sweep(settings: Sweep, space: Space, sampler: str) -> Literal["asha", "none"]:
    """Return who stops trials. Raises UserError, naming the setting, on what no sweep could have."""
    least = {"trials": 0, "seeds": 0, "grace": 0, "reduction": 2, "concurrent": 0, "retries": 0, "seed": 0}
    for name, low in least.items():
        if (number := getattr(settings, name)) < low:
            raise UserError(f"--{name} must be at least {low}, not {number}.")
    if space.base.evaluation.extractor == "none":
        raise UserError("The base of the space has no feature extractor: nothing could be compared.")
    if sampler == "grid" and settings.trials:
        raise UserError("--trials is a grid's own: leave it out, or take another --sampler.")
    whole = (
        "two objectives compare" if len(space.minimize) > 1 else "gp learns from" if sampler == "gp" else ""
    )
    if whole and settings.scheduler == "asha":
        raise UserError(f"--scheduler asha stops trials, and {whole} finished ones alone: leave it out.")
    scheduler = settings.scheduler or ("none" if whole else "asha")
    if scheduler == "none" and (settings.grace or settings.reduction != Sweep.reduction):
        raise UserError("--grace and --reduction are asha's, and no trial is stopped here: leave them out.")
    return scheduler
