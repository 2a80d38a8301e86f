"""The number of images that are computed at once, where none is given: as many as fit into the memory."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from cm_ray.networks.architectures import Architecture
from cm_ray.networks.arithmetic import Precision
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.sampling_memory import sampling_bytes

MOST = 256
"""More images at once are no faster."""
SHARE = 0.5
"""Share of the free memory that is used: features, libraries and gaps between tensors need the rest."""
_MEMINFO, _CONTROL_GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def fitting_batch(spec: ModelSpec, precision: Precision, device: str, free: float) -> int:
    """Return a power of two of images, 256 at most, that are sampled at once in half of `free` bytes.

    Samples depend on it by rounding at most. device: cpu or cuda. A network of one's own, whose memory cannot
    be counted, gets 256.
    """
    if not isinstance(spec.network, Architecture):
        return MOST
    rows = MOST
    while rows > 1 and sampling_bytes(spec, rows, precision, device) > SHARE * free:
        rows //= 2
    return rows


def batch_on(device: torch.device, given: int, spec: ModelSpec, precision: Precision = "float32") -> int:
    """Return the number of images that a model of this process computes at once; `given`, if it is not 0."""
    return given or fitting_batch(spec, precision, device.type, free_memory(device))


def free_memory(device: torch.device | str = "cpu") -> float:
    """Return the free bytes of a GPU, or those that this machine or its container still gives a process."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_available(), _left_in_control_group())


def _available() -> int:
    if not _MEMINFO.is_file():  # not Linux: half of all
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    lines = _MEMINFO.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _left_in_control_group() -> int | float:
    """Return what a container's limit leaves; infinite without one. Cached files make room."""
    limit, now = _CONTROL_GROUP / "memory.max", _CONTROL_GROUP / "memory.current"
    if not limit.is_file() or not now.is_file() or limit.read_text().strip() == "max":
        return float("inf")
    stat = dict(line.split() for line in (_CONTROL_GROUP / "memory.stat").read_text().splitlines())
    return int(limit.read_text()) - int(now.read_text()) + int(stat.get("inactive_file", 0))
