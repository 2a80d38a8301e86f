"""Options of a sweep, their validation, and the resources of its trials."""

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
    """Options of a sweep."""

    space: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SPACE")]
    """A file of search_spaces/ by its name, or a file of your own with a SPACE."""
    trials: int = 0
    """Settings to try, including those of earlier calls; 0: the space's own number. A greater number than
    before continues a finished sweep."""
    seeds: int = 0
    """Trainings of each setting; their mean score counts; 0: the space's own number."""
    sampler: Literal["", "tpe", "gp", "random", "grid", "nsga2"] = ""
    """Optuna's sampler, which chooses the settings; empty: the space's own."""
    scheduler: Literal["", "asha", "none"] = ""
    """asha stops trials whose scores are behind; empty: asha, but none for two objectives and for gp, which
    learn from finished trials only."""
    grace: int = 0
    """Steps before which no trial is stopped; 0: the space's own number."""
    reduction: int = 3
    """Reduction factor of asha: one in this many trials continues at each rung."""
    concurrent: int = 0
    """Concurrent trials; 0: as many as the free GPUs or CPU cores allow."""
    retries: int = 1
    """Number of times that a trial is repeated when its process fails."""
    seed: int = 0
    """Seed of the sampler."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A setting of all trials, PATH=VALUE, such as steps=1000; can be repeated."""
    teacher: str = ""
    """The model that is distilled: short for --set teacher.model=…"""
    study: str = ""
    """Name of the study; empty: that of the run directory."""
    storage: str = ""
    """Storage of the study: sqlite:////path/study.db, postgresql://…, journal:/path/file; empty: study.db
    in the run directory."""
    run_dir: str = ""
    """Directory of everything that the sweep writes; the same command continues there. Empty: $CM_RAY_RUNS or
    ./runs, and sweep-SPACE."""
    tracking_uri: str = ""
    """MLflow server or store; empty: mlflow.db beside the run directory; none: do not track."""


def share(space: Space, wanted: int, left: int) -> tuple[int, Plan]:
    """Return the number of concurrent trials, and the resources of each of their trainings.

    wanted: --concurrent; 0: as many as fit. left: trials to run. Raises UserError when the cluster has no
    room for the wanted number, or for a single trial.
    """
    nodes, free = node_resources(), ray.available_resources()
    use_gpu = plan(space.base.cluster, nodes).use_gpu  # the same device for all trials
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
    """Return the scheduler of a sweep. Raises UserError on options out of range or in conflict."""
    least = {"trials": 0, "seeds": 0, "grace": 0, "reduction": 2, "concurrent": 0, "retries": 0, "seed": 0}
    for name, low in least.items():
        if (number := getattr(settings, name)) < low:
            raise UserError(f"--{name} must be at least {low}, not {number}.")
    if space.base.evaluation.extractor == "none":
        raise UserError(
            "The base of the space has no feature extractor, so that nothing could be compared: set "
            "evaluation.extractor."
        )
    if sampler == "grid" and settings.trials:
        raise UserError("A grid determines --trials itself: leave it out, or use another --sampler.")
    several = len(space.minimize) > 1
    whole = "two objectives need" if several else "gp needs" if sampler == "gp" else ""
    if whole and settings.scheduler == "asha":
        raise UserError(f"--scheduler asha stops trials, and {whole} finished ones: leave it out.")
    scheduler = settings.scheduler or ("none" if whole else "asha")
    if scheduler == "none" and (settings.grace or settings.reduction != Sweep.reduction):
        raise UserError("--grace and --reduction belong to asha, which is not used here: leave them out.")
    return scheduler
