"""The scheduler of a sweep, and the share of the cluster that each of its trials takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import ray

from cm_ray.cluster.runtime.connect import Plan, node_resources, plan
from cm_ray.command_line.settings.sweep import Sweep
from cm_ray.errors import UserError
from cm_ray.sweeps.space import Space


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
    """Return the scheduler that stops trials. Raises UserError on settings that exclude each other."""
    if space.base.evaluation.extractor == "none":
        raise UserError("The base of the space has no feature extractor: nothing could be compared.")
    if sampler == "grid" and settings.trials:
        raise UserError("--trials is a grid's own: leave it out, or take another --searcher.")
    whole = (
        "two objectives compare" if len(space.minimize) > 1 else "gp learns from" if sampler == "gp" else ""
    )
    if whole and settings.scheduler == "asha":
        raise UserError(f"--scheduler asha stops trials, and {whole} finished ones alone: leave it out.")
    scheduler = settings.scheduler or ("none" if whole else "asha")
    if scheduler == "none" and (settings.grace or settings.reduction != Sweep.reduction):
        raise UserError("--grace and --reduction are asha's, and no trial is stopped here: leave them out.")
    return scheduler
