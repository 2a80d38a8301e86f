"""Into the cluster: connect to it or start one, and plan what runs where."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import ray

from cm_ray.errors import DEBUG_VARIABLE, UserError
from cm_ray.recipes.sections import ClusterSettings

DATA_CPUS = 0.25
"""CPUs of a Ray Data read task: reading shards is mostly waiting."""

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # else every report waits for a poll of 2 s
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Of drivers and of what they start: set where it is not."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Use the cluster that this process runs in (``RAY_ADDRESS``, as in a submitted job), else a local one.

    A local cluster that was started here ends here. A connection that was there already is left alone.
    Raises UserError when RAY_ADDRESS cannot be reached.
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
            f"No Ray cluster answers at RAY_ADDRESS={address} ({error}); start it, or unset RAY_ADDRESS "
            "to train on this machine alone."
        ) from error
    quiet_ray(debug)
    try:
        yield
    finally:
        _let_readers_end()
        ray.shutdown()


def _let_readers_end() -> None:
    """Wait for Ray Data's threads of closed streams: one that meets a shut-down Ray ends the process."""
    for thread in threading.enumerate():
        if thread.name.startswith("iter_threaded"):
            thread.join(timeout=5)


def quiet_ray(debug: bool = False) -> None:
    """Keep Ray from writing over the progress of a job; a sweep tells of failed trials itself."""
    for name, level in {"data": logging.ERROR, "train": logging.ERROR, "tune": logging.CRITICAL}.items():
        logging.getLogger(f"ray.{name}").setLevel(logging.INFO if debug else level)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = debug


def user_error(error: BaseException) -> UserError | None:
    """Return the UserError that an exception is, or that a Ray task raised and Ray wrapped in its own."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return user_error(error.cause)
    return error if isinstance(error, UserError) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a training run takes of the cluster."""

    num_workers: int
    gpus_per_worker: float
    cpus_per_worker: float
    threads: int
    """PyTorch threads per worker."""

    @property
    def use_gpu(self) -> bool:
        """Whether workers train on GPUs."""
        return self.gpus_per_worker > 0

    def __str__(self) -> str:
        """Say the plan in a line."""
        device = "a GPU each" if self.use_gpu else f"CPU, {self.threads} threads each"
        workers = "1 worker" if self.num_workers == 1 else f"{self.num_workers} workers"
        return f"{workers} ({device}; {self.cpus_per_worker:g} CPU reserved per worker)"


def node_resources() -> list[dict[str, float]]:
    """Return the resources of every live node of the cluster, ``[{"CPU": 8, "GPU": 1}, …]``."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def plan(config: ClusterSettings, nodes: Sequence[Mapping[str, float]]) -> Plan:
    """Divide the nodes' cores and GPUs among the training workers and Ray Data.

    Workers that held every CPU would starve Ray Data, which hangs without a word; so up to one CPU of
    every node is left for it, and a worker's CPU is a fraction where cores are few. Raises UserError when
    the workers do not fit.
    """
    workers = config.num_workers
    cpus, gpus = (sum(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
    use_gpu = config.use_gpu == "yes" or (config.use_gpu == "auto" and gpus >= workers)
    if use_gpu and gpus < workers:
        raise UserError(
            f"{workers} workers need a GPU each and the cluster has {gpus}; lower --num-workers "
            "or give --cluster.use-gpu no."
        )
    hosts = [host for node in nodes if (host := _host(node, use_gpu, workers)).workers]
    if sum(host.workers for host in hosts) < workers:
        raise UserError(
            f"{workers} workers need a CPU core each and the cluster has {cpus}; lower --num-workers."
        )
    most = 4.0 if use_gpu else 1.0
    fair = min(min(most, (host.cpus - min(1.0, host.cpus / 2)) / host.workers) for host in hosts)
    per_worker = config.cpus_per_worker or math.floor(fair * 1000 + 1e-6) / 1000  # down: it must fit
    if any(host.workers * per_worker + DATA_CPUS > host.cpus for host in hosts):
        raise UserError(
            f"{workers} workers with {per_worker:g} CPUs each leave nothing of a node's CPUs to Ray Data, "
            f"which needs {DATA_CPUS}; lower --cluster.cpus-per-worker."
        )
    return Plan(
        num_workers=workers,
        gpus_per_worker=1.0 if use_gpu else 0.0,
        cpus_per_worker=per_worker,
        threads=config.threads or max(1, min(int(host.cpus // host.workers) for host in hosts)),
    )


@dataclass(frozen=True, slots=True)
class _Host:
    cpus: float
    workers: int
    """The most that may come to it."""


def _host(node: Mapping[str, float], use_gpu: bool, workers: int) -> _Host:
    cpus = node.get("CPU", 0.0)
    room = min(int(node.get("GPU", 0)), int(cpus)) if use_gpu else int(cpus)
    return _Host(cpus, min(room, workers))
