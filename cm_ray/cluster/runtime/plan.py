"""The plan of a training's resources: workers that fit the nodes, on the device that the run began on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cm_ray.errors import UserError, setting
from cm_ray.recipes.sections import ClusterSettings
from cm_ray.recipes.worker_range import WorkerRange
from cm_ray.runs.resources import Resources

DATA_CPUS = 0.25
"""CPUs that are reserved beside each worker for Ray Data's tasks, which mostly wait for the disk."""

Bundle = dict[str, float]
"""Resources of one worker or actor, such as ``{"CPU": 1, "GPU": 1}``."""


class Shortage(UserError):
    """The cluster has too few nodes for a plan: a statement, what to do, and the bundles that are needed."""

    def __init__(self, lack: str, advice: str, bundles: list[Bundle]) -> None:
        super().__init__(f"{lack}; {advice}.")
        self.lack, self.advice, self.bundles = lack, advice, bundles


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """Resources of a training run: its workers, and the share of each."""

    num_workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    threads: int
    """PyTorch threads per worker."""
    strategy: Literal["PACK", "SPREAD"] = "SPREAD"
    """Ray's strategy of placing the workers: on as few nodes as they need, or on as many as there are."""
    workers: WorkerRange | None = None
    """The numbers of workers that the run may have; None: it has always the same."""

    @property
    def use_gpu(self) -> bool:
        """True if workers train on GPUs."""
        return self.gpus_per_worker > 0

    @property
    def resources(self) -> Resources:
        """The resources that the run remembers."""
        device = "cuda" if self.use_gpu else "cpu"
        least, most = (self.workers.least, self.workers.most) if self.workers else (0, self.num_workers)
        return Resources(device=device, workers=most, least=least, threads=self.threads)

    @property
    def bundle(self) -> Bundle:
        """Resources of a worker."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.use_gpu else {})

    @property
    def whole_bundle(self) -> Bundle:
        """Resources of a worker and of the tasks that read for it."""
        return self.bundle | {"CPU": self.cpus_per_worker + DATA_CPUS}

    def __str__(self) -> str:
        """Return a description of the plan in one line."""
        device = "a GPU each" if self.use_gpu else f"CPU, {self.threads} threads each"
        workers = "1 worker" if self.num_workers == 1 else f"{self.num_workers} workers"
        workers += f" of {self.workers}" if self.workers else ""
        return f"{workers} ({device}; {self.cpus_per_worker:g} CPU reserved per worker)"


def plan_workers(
    config: ClusterSettings, nodes: Sequence[Mapping[str, float]], before: Resources | None = None
) -> WorkerPlan:
    """Divide the CPUs and GPUs of the nodes between the training workers and Ray Data.

    before: the resources that the run began with; a device or a number of threads that the settings leave
    open stays as it was. Of a range of workers, as many are planned as fit. Ray Data hangs silently when
    workers reserve all CPUs. So every worker leaves some of a CPU to it, up to one CPU of a node stays free,
    and workers reserve fractions of a CPU where there are few. Raises Shortage when the workers, or the
    fewest of a range, do not fit.
    """
    return possible_plans(config, nodes, before)[0]


def possible_plans(
    config: ClusterSettings, nodes: Sequence[Mapping[str, float]], before: Resources | None = None
) -> list[WorkerPlan]:
    """Return the plans of all numbers of workers that fit on the nodes, the largest first.

    before: see `plan_workers`. Raises Shortage when there is none.
    """
    found, workers = [], config.workers
    for count in reversed(workers.counts):
        try:
            plan = _plan_of(count, config, nodes, before)
            found.append(replace(plan, workers=workers if workers.is_elastic else None))
        except UserError:
            if count == workers.least and not found:
                raise
    return found


def _plan_of(
    workers: int, config: ClusterSettings, nodes: Sequence[Mapping[str, float]], before: Resources | None
) -> WorkerPlan:
    """Return the plan of a number of workers. Raises Shortage when they do not fit."""
    use_gpu = _wants_gpu(config, nodes, before)
    hosts = [host for node in nodes if (host := _host(node, use_gpu, workers)).workers]
    if sum(host.workers for host in hosts) < workers:
        raise _shortage(workers, config, nodes, before, use_gpu)
    most = 4.0 if use_gpu else 1.0
    fair = min(min(most, (host.cpus - host.left) / host.workers) for host in hosts)
    per_worker = config.cpus_per_worker or math.floor(fair * 1000 + 1e-6) / 1000  # down: it must fit
    if any(host.workers * (per_worker + DATA_CPUS) > host.cpus for host in hosts):
        raise UserError(
            f"{workers} workers with {per_worker:g} CPUs each leave too little of a node's CPUs to Ray Data, "
            f"which needs {DATA_CPUS} for each; lower {setting('cluster.cpus_per_worker')}."
        )
    kept = before.threads if before and not use_gpu else 0
    packed = use_gpu and all(host.gpus <= host.workers or host.workers >= workers for host in hosts)
    return WorkerPlan(
        num_workers=workers,
        gpus_per_worker=1.0 if use_gpu else 0.0,
        cpus_per_worker=per_worker,
        threads=config.threads or kept or max(1, min(int(host.cpus // host.workers) for host in hosts)),
        strategy="PACK" if packed else "SPREAD",
    )


def changes_of(before: Resources, now: Resources) -> str:
    """Return how a run goes on otherwise than it began, by its settings; empty if it does not."""
    changes = []
    if before.device != now.device:
        changes.append(f"{now.noun} instead of {before.noun}")
    if (before.workers, before.least) != (now.workers, now.least):
        changes.append(f"{now.counted} instead of {before.workers if not before.least else before.counted}")
    if before.device == now.device == "cpu" and before.threads != now.threads:
        changes.append(f"{now.threads} threads a worker instead of {before.threads}")
    return ", ".join(changes)


def _wants_gpu(
    config: ClusterSettings, nodes: Sequence[Mapping[str, float]], before: Resources | None
) -> bool:
    """Return whether workers train on GPUs: by the settings, by the run's beginning, else by the nodes."""
    if config.use_gpu != "auto":
        return config.use_gpu == "yes"
    return before.device == "cuda" if before else _total(nodes, "GPU") > 0


def _total(nodes: Sequence[Mapping[str, float]], kind: str) -> int:
    return sum(int(node.get(kind, 0)) for node in nodes)


def _shortage(
    workers: int,
    config: ClusterSettings,
    nodes: Sequence[Mapping[str, float]],
    before: Resources | None,
    use_gpu: bool,
) -> Shortage:
    """Return what the nodes lack for the workers."""
    gpus = _total(nodes, "GPU")
    began = (
        "The run began on GPUs: " if before and before.device == "cuda" and config.use_gpu == "auto" else ""
    )
    bundle = {"CPU": config.cpus_per_worker or 1.0} | ({"GPU": 1.0} if use_gpu else {})
    if use_gpu and gpus < workers:
        lack = f"{began}{workers} workers need a GPU each and the cluster has {gpus}"
        other = f", or set {setting('cluster.use_gpu')} to no"
    else:
        lack = f"{workers} workers need a CPU core each and the cluster has {_total(nodes, 'CPU')}"
        other = ""
    waiting = f"wait for nodes with {setting('cluster.wait_for_nodes')}"
    advice = f"lower {setting('cluster.num_workers')}, {waiting}{other}"
    return Shortage(lack, advice, [bundle] * workers)


@dataclass(frozen=True, slots=True)
class _Host:
    cpus: float
    gpus: int
    workers: int
    """The largest number of workers that the node has room for."""

    @property
    def left(self) -> float:
        """CPUs that the workers leave: to Ray Data, and to all else."""
        return max(min(1.0, self.cpus / 2), self.workers * DATA_CPUS)


def _host(node: Mapping[str, float], use_gpu: bool, workers: int) -> _Host:
    cpus, gpus = node.get("CPU", 0.0), int(node.get("GPU", 0))
    room = min(gpus, int(cpus)) if use_gpu else int(cpus)
    return _Host(cpus, gpus, min(room, workers))
