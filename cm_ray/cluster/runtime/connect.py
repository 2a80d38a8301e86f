"""Connect to a Ray cluster or start one."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
from collections.abc import Iterator

import ray
import torch

from cm_ray.errors import DEBUG_VARIABLE, UserError
from cm_ray.phases import phase
from cm_ray.spinning import SPIN_COUNT

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # with the default of 2 s, every report waits for a poll
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    **dict([SPIN_COUNT]),
}
"""Environment variables of the driver and its processes; variables that are already set are kept."""


_STARTED_LATE = "timed out during startup"
"""Words of Ray's message when its processes do not answer soon after their start."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster at ``RAY_ADDRESS`` (submitted jobs have it), else start a local one.

    The connection, or the local cluster, is closed after the block. A local cluster has no dashboard:
    its ten processes would live no longer than the command. If Ray is already initialized, it is used and
    left running. Raises UserError when RAY_ADDRESS cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS") or "local"
    alone = {"include_dashboard": False} if address == "local" else {}
    phase("starting Ray on this machine" if address == "local" else f"connecting to Ray at {address}")
    debug = bool(os.environ.get(DEBUG_VARIABLE))
    try:
        ray.init(
            address=address,
            **alone,
            log_to_driver=debug,
            logging_level=logging.INFO if debug else logging.ERROR,
        )
    except Exception as error:  # what a start that takes too long raises has no class of its own
        if sentence := _no_cluster(error, address):
            raise sentence from error
        raise
    quiet_ray(debug)
    try:
        yield
    finally:
        _join_readers()
        ray.shutdown()


def _no_cluster(error: Exception, address: str) -> UserError | None:
    """Return why there is no connection to a cluster as a UserError; None for a defect."""
    if _STARTED_LATE in str(error):
        return UserError(
            "Ray did not start in time, as this machine is too busy; repeat the command when it is less so."
        )
    if not isinstance(error, ConnectionError | RuntimeError | ValueError):
        return None
    return UserError(
        f"There is no Ray cluster at RAY_ADDRESS={address} ({error}); start it, or unset RAY_ADDRESS to "
        "use this machine alone."
    )


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


def cause_of(error: BaseException) -> str:
    """Return the cause of a death in a few words, from a message of Ray that has many lines."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its node ran out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    _, found, detail = str(error).partition("Worker exit detail: ")
    return (detail.partition(". ")[0] if found else [type(error).__name__, *lines][-1]).rstrip(".")


def node_name() -> str:
    """Return the name and the address of the node that this process is on, for messages."""
    return f"{platform.node()} ({ray.util.get_node_ip_address()})"


def check_cuda() -> None:
    """Raise UserError when Ray has given this process a GPU and PyTorch cannot use it."""
    if not torch.cuda.is_available():
        raise UserError(
            f"Ray has a GPU on node {node_name()}, and PyTorch {torch.__version__} cannot use it; install a "
            "driver and a PyTorch with CUDA there."
        )
