"""The number of sampling actors, and the resources that each one reserves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cm_ray.cluster.runtime.connect import WorkerPlan
from cm_ray.errors import UserError
from cm_ray.recipes.measuring import ActorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Actors:
    """A number of equal actors."""

    count: int
    cpus: float
    """CPUs that each actor reserves."""
    gpus: float = 0.0
    """Share of a GPU that each actor reserves."""
    threads: int = 1
    """PyTorch threads of each actor."""

    @property
    def device(self) -> str:
        """Device of the actors' networks."""
        return "cuda" if self.gpus else "cpu"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for Actor.options."""
        # the placement group of a Tune trial has no room for actors
        outside = PlacementGroupSchedulingStrategy(placement_group=None)
        resources = {"num_cpus": self.cpus} | ({"num_gpus": self.gpus} if self.gpus else {})
        return {**resources, "scheduling_strategy": outside}

    def __str__(self) -> str:
        """Return a description of the actors, such as "2 actors on a GPU each"."""
        device = "a GPU" if self.gpus == 1 else f"{self.gpus:g} of a GPU" if self.gpus else "a CPU core"
        if not self.gpus and self.threads > 1:
            device = f"{self.threads} CPU cores"
        return f"{self.count} actor{'s' if self.count > 1 else ''} on {device}{' each' * (self.count > 1)}"


def actors_like(workers: WorkerPlan) -> Actors:
    """Return actors with the resources of training workers: one per GPU, or one per CPU core without GPUs."""
    if workers.use_gpu:
        return Actors(count=workers.num_workers, cpus=workers.cpus_per_worker, gpus=workers.gpus_per_worker)
    count = workers.num_workers * workers.threads
    return Actors(count=count, cpus=workers.cpus_per_worker * workers.num_workers / count)


def plan_actors(config: ActorSettings, nodes: Sequence[Mapping[str, float]]) -> Actors:
    """Return the actors that the settings describe, on nodes with these resources.

    Raises UserError when the actors do not fit on the nodes, or when a setting is out of range.
    """
    if config.count < 0 or not 0 < config.gpus_each <= 1 or config.cpus_each <= 0:
        raise UserError(
            "actors.count must not be negative, actors.gpus_each must be in (0, 1] and actors.cpus_each must "
            "be positive."
        )
    has_gpus = any(node.get("GPU", 0) for node in nodes)
    if config.use_gpu == "yes" and not has_gpus:
        raise UserError("actors.use_gpu is yes, but the cluster has no GPU; set it to auto or no.")
    gpus = config.gpus_each if has_gpus and config.use_gpu != "no" else 0.0
    cpus = config.cpus_each
    room = sum(_room(node, cpus, gpus) for node in nodes)
    if room < max(1, config.count):
        raise UserError(
            f"{config.count or 1} actors with {config.cpus_each:g} CPUs and {gpus:g} GPUs each do not fit: "
            f"the cluster has room for {room}; lower actors.count, actors.cpus_each or actors.gpus_each."
        )
    return Actors(count=config.count or room, cpus=cpus, gpus=gpus, threads=max(1, int(cpus)))


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return the number of actors that a node has room for; a share of a GPU is a share of one GPU."""
    by_cpu = math.floor(node.get("CPU", 0.0) / cpus + 1e-9)
    if not gpus:
        return by_cpu
    return min(by_cpu, int(node.get("GPU", 0)) * math.floor(1 / gpus + 1e-9))
