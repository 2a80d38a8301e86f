"""Connect to a Ray cluster or start one, and plan the resources of training workers."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import ray

from cm_ray.errors import DEBUG_VARIABLE, UserError, setting
from cm_ray.recipes.sections import ClusterSettings

DATA_CPUS = 0.25
"""CPUs that a Ray Data read task reserves: it mostly waits for the disk."""
_WORKERS = setting("cluster.num_workers")

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # with the default of 2 s, every report waits for a poll
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment variables of the driver and its processes; variables that are already set are kept."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster at ``RAY_ADDRESS`` (submitted jobs have it), else start a local one.

    The connection, or the local cluster, is closed after the block. If Ray is already initialized, it is used
    and left running. Raises UserError when RAY_ADDRESS cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS") or "local"
    debug = bool(os.environ.get(DEBUG_VARIABLE))
    try:
        ray.init(
            address=address,
            log_to_driver=debug,
            logging_level=logging.INFO if debug else logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"There is no Ray cluster at RAY_ADDRESS={address} ({error}); start it, or unset RAY_ADDRESS to "
            "use this machine alone."
        ) from error
    quiet_ray(debug)
    try:
        yield
    finally:
        _join_readers()
        ray.shutdown()


def _join_readers() -> None:
    """Wait for Ray Data's threads of closed streams: one that runs after ray.shutdown ends the process."""
    for thread in threading.enumerate():
        if thread.name.startswith("iter_threaded"):
            thread.join(timeout=5)


def quiet_ray(debug: bool = False) -> None:
    """Keep Ray's logs and progress bars off the terminal, where the job shows its own progress."""
    for name, level in {"data": logging.ERROR, "train": logging.ERROR, "tune": logging.CRITICAL}.items():
        logging.getLogger(f"ray.{name}").setLevel(logging.INFO if debug else level)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = debug


def user_error(error: BaseException) -> UserError | None:
    """Return the UserError in an exception, directly or as the cause of a RayTaskError; None without one."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return user_error(error.cause)
    return error if isinstance(error, UserError) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """Resources of a training run: its workers, and the share of each."""

    num_workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    threads: int
    """PyTorch threads per worker."""

    @property
    def use_gpu(self) -> bool:
        """True if workers train on GPUs."""
        return self.gpus_per_worker > 0

    def __str__(self) -> str:
        """Return a description of the plan in one line."""
        device = "a GPU each" if self.use_gpu else f"CPU, {self.threads} threads each"
        workers = "1 worker" if self.num_workers == 1 else f"{self.num_workers} workers"
        return f"{workers} ({device}; {self.cpus_per_worker:g} CPU reserved per worker)"


def node_resources() -> list[dict[str, float]]:
    """Return the resources of every live node of the cluster, ``[{"CPU": 8, "GPU": 1}, …]``."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def plan_workers(config: ClusterSettings, nodes: Sequence[Mapping[str, float]]) -> WorkerPlan:
    """Divide the CPUs and GPUs of the nodes between the training workers and Ray Data.

    Ray Data hangs silently when workers reserve all CPUs. So up to one CPU of every node is left for it, and
    workers reserve fractions of a CPU where there are few. Raises UserError when the workers do not fit.
    """
    workers = config.num_workers
    cpus, gpus = (sum(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
    use_gpu = config.use_gpu == "yes" or (config.use_gpu == "auto" and gpus >= workers)
    if use_gpu and gpus < workers:
        raise UserError(
            f"{workers} workers need a GPU each and the cluster has {gpus}; lower {_WORKERS}, or "
            f"set {setting('cluster.use_gpu')} to no."
        )
    hosts = [host for node in nodes if (host := _host(node, use_gpu, workers)).workers]
    if sum(host.workers for host in hosts) < workers:
        raise UserError(
            f"{workers} workers need a CPU core each and the cluster has {cpus}; lower {_WORKERS}."
        )
    most = 4.0 if use_gpu else 1.0
    fair = min(min(most, (host.cpus - min(1.0, host.cpus / 2)) / host.workers) for host in hosts)
    per_worker = config.cpus_per_worker or math.floor(fair * 1000 + 1e-6) / 1000  # down: it must fit
    if any(host.workers * per_worker + DATA_CPUS > host.cpus for host in hosts):
        raise UserError(
            f"{workers} workers with {per_worker:g} CPUs each leave nothing of a node's CPUs to Ray Data, "
            f"which needs {DATA_CPUS}; lower {setting('cluster.cpus_per_worker')}."
        )
    return WorkerPlan(
        num_workers=workers,
        gpus_per_worker=1.0 if use_gpu else 0.0,
        cpus_per_worker=per_worker,
        threads=config.threads or max(1, min(int(host.cpus // host.workers) for host in hosts)),
    )


@dataclass(frozen=True, slots=True)
class _Host:
    cpus: float
    workers: int
    """The largest number of workers that the node has room for."""


def _host(node: Mapping[str, float], use_gpu: bool, workers: int) -> _Host:
    cpus = node.get("CPU", 0.0)
    room = min(int(node.get("GPU", 0)), int(cpus)) if use_gpu else int(cpus)
    return _Host(cpus, min(room, workers))
