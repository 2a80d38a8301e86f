"""The number of sampling actors, and the resources that each one reserves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import Shortage, WorkerPlan
from cm_ray.cluster.runtime.waiting import LOST_NODES_S, planned_when_nodes_suffice
from cm_ray.drawing.batches import MOST, fitting_batch, free_memory
from cm_ray.errors import UserError, setting
from cm_ray.networks.arithmetic import Precision
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.runs.console import say
from cm_ray.runs.resources import Resources
from cm_ray.settings.duration import seconds_of

_COUNT, _CPUS, _GPUS = (setting(f"actors.{name}") for name in ("count", "cpus_each", "gpus_each"))


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
    limit_s: float = LOST_NODES_S
    """Seconds to wait for nodes that were lost."""

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

    def fit_on(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Return the number of actors that nodes with these resources have room for."""
        return sum(_room(node, self.cpus, self.gpus) for node in nodes)

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


def actors_for(config: ActorSettings, work: Path) -> Actors:
    """Return the actors that the settings describe, on the device that unfinished work in a folder began on.

    The device is remembered in the folder. Nodes are waited for as long as the settings say. Raises UserError
    when the actors do not fit on the nodes.
    """
    before = Resources.load(work)
    actors = planned_when_nodes_suffice(
        lambda: plan_actors(config, node_resources(), before), seconds_of(config.wait_for_nodes)
    )
    now = Resources(device=actors.device)
    if before and before.device != now.device:
        say(f"The work in {work.parent} was begun on {before.noun}, and is done again on {now.noun}.")
    if not before or before.device != now.device:
        now.save(work)
    return actors


def batch_for(given: int, precision: Precision, spec: ModelSpec, actors: Actors, work: Path) -> int:
    """Return the number of images that an actor computes at once; `given`, if it is not 0.

    It is what fits into an actor's share of the memory that its node gives to Ray, or of its GPU, and what
    unfinished work in a folder began with: its results are kept by it.
    """
    if given:
        return given
    before = Resources.load(work)
    if before and before.batch and before.device == actors.device:
        return before.batch
    batch = fitting_batch(spec, precision, actors.device, memory_each(actors))
    Resources(device=actors.device, batch=batch).save(work)
    if batch < MOST:
        say(f"{batch} images at a time fit into the memory of an actor ({setting('batch_size')}).")
    return batch


def memory_each(actors: Actors) -> float:
    """Return the bytes of an actor: the smallest share of the nodes that have room for one, or of a GPU."""
    if actors.gpus:
        probe: Any = ray.remote(num_gpus=actors.gpus, num_cpus=0)(_free_on_gpu)
        return actors.gpus * float(ray.get(probe.remote()))
    rooms = [(node.get("memory", math.inf), _room(node, actors.cpus, 0.0)) for node in node_resources()]
    return min((memory / room for memory, room in rooms if room), default=math.inf)


def _free_on_gpu() -> float:
    return free_memory("cuda")


def plan_actors(
    config: ActorSettings, nodes: Sequence[Mapping[str, float]], before: Resources | None = None
) -> Actors:
    """Return the actors that the settings describe, on nodes with these resources.

    before: the resources that the work began with, which decide the device where the settings do not. Raises
    Shortage when the actors do not fit on the nodes, and UserError when a setting is out of range.
    """
    if config.count < 0 or not 0 < config.gpus_each <= 1 or config.cpus_each <= 0:
        raise UserError(
            f"{_COUNT} must not be negative, {_GPUS} must be in (0, 1] and {_CPUS} must be positive."
        )
    gpus = config.gpus_each if _wants_gpu(config, nodes, before) else 0.0
    cpus, wanted = config.cpus_each, config.count or 1
    room = sum(_room(node, cpus, gpus) for node in nodes)
    if room < wanted:
        began = "The work was begun on GPUs: " if gpus and before and config.use_gpu == "auto" else ""
        bundle = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        raise Shortage(
            f"{began}{wanted} actor{'s' * (wanted > 1)} with {cpus:g} CPUs and {gpus:g} GPUs each need more "
            f"than the cluster has, which has room for {room}",
            f"lower {_COUNT}, {_CPUS} or {_GPUS}, wait for nodes with {setting('actors.wait_for_nodes')}"
            + (f", or set {setting('actors.use_gpu')} to no" if gpus else ""),
            [bundle] * wanted,
        )
    return Actors(
        count=config.count or room,
        cpus=cpus,
        gpus=gpus,
        threads=max(1, int(cpus)),
        limit_s=max(LOST_NODES_S, seconds_of(config.wait_for_nodes)),
    )


def _wants_gpu(config: ActorSettings, nodes: Sequence[Mapping[str, float]], before: Resources | None) -> bool:
    """Return whether actors get GPUs: by the settings, by the work's beginning, else by the nodes."""
    if config.use_gpu != "auto":
        return config.use_gpu == "yes"
    return before.device == "cuda" if before else any(node.get("GPU", 0) for node in nodes)


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return the number of actors that a node has room for; a share of a GPU is a share of one GPU."""
    by_cpu = math.floor(node.get("CPU", 0.0) / cpus + 1e-9)
    if not gpus:
        return by_cpu
    return min(by_cpu, int(node.get("GPU", 0)) * math.floor(1 / gpus + 1e-9))
