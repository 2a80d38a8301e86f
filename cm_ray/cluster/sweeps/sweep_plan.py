"""Options of a sweep, their validation, and the resources of its trials."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import ray

from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import WorkerPlan, plan_workers
from cm_ray.cluster.training.fit import plan_training
from cm_ray.errors import UserError, setting
from cm_ray.runs.resources import Resources
from cm_ray.sweeps.options import Sweep
from cm_ray.sweeps.space import Space


def share(space: Space, wanted: int, left: int, before: Resources | None) -> tuple[int, WorkerPlan]:
    """Return the number of concurrent trials, and the resources of each of their trainings.

    wanted: --concurrent; 0: as many as fit. left: trials to run. before: the resources of a trial's training
    at the start of the sweep; device and threads are kept. Raises UserError when the cluster has no room for
    the wanted number, or for a single trial.
    """
    one = plan_training(space.base.cluster, before)  # the same device for all trials
    nodes, free = node_resources(), ray.available_resources()
    cluster = replace(space.base.cluster, use_gpu="yes" if one.use_gpu else "no")
    workers = cluster.workers.most
    room = max(1, int(free.get("GPU" if one.use_gpu else "CPU", 0)) // workers)
    for concurrent in [wanted] if wanted else range(min(left, room), 0, -1):
        try:
            return concurrent, plan_workers(replace(cluster, num_workers=concurrent * workers), nodes, before)
        except UserError as error:
            refusal = error
    raise refusal


def check_sweep(settings: Sweep, space: Space, sampler: str) -> Literal["asha", "none"]:
    """Return the scheduler of a sweep. Raises UserError on options out of range or in conflict."""
    if space.base.evaluation.extractor == "none":
        raise UserError(
            "The base of the space has no feature extractor, so that nothing could be compared: set "
            f"{setting('evaluation.extractor')}."
        )
    if space.base.cluster.workers.is_elastic:
        raise UserError(
            f"Trials have a fixed number of workers each, not {space.base.cluster.num_workers}: "
            f"set {setting('cluster.num_workers')} to one."
        )
    if sampler == "grid" and settings.trials:
        raise UserError(
            f"A grid determines {setting('trials')} itself: leave it out, or use another "
            f"{setting('searcher')}."
        )
    several = len(space.minimize) > 1
    whole = "two objectives need" if several else "gp needs" if sampler == "gp" else ""
    if whole and settings.scheduler == "asha":
        raise UserError(f"{setting('scheduler')} asha stops trials, and {whole} finished ones: leave it out.")
    scheduler = settings.scheduler or ("none" if whole else "asha")
    if scheduler == "none" and (settings.grace or settings.reduction != Sweep.reduction):
        grace, reduction = setting("grace"), setting("reduction")
        raise UserError(f"{grace} and {reduction} belong to asha, which is not used here: leave them out.")
    return scheduler
