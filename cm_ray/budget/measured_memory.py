"""Peak memory of a training, measured in steps that are taken in a separate process."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from cm_ray.budget.memory import untrained_distance
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import ADM
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.own_code import carried, take
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

_STATUS, _MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_TINY = {
    "network.channels": 32,
    "network.channel_mult": (1,),
    "network.blocks": 1,
    "network.norm_groups": 32,
    "network.attention_resolutions": (),
    "distance": "l2",
}


def measured_memory(config: Recipe, spec: ModelSpec, rows: int, device: str = "cpu") -> int:
    """Return the peak memory, in bytes, of two steps of a worker with `rows` images at a time.

    The memory of PyTorch and of the libraries themselves is not included. On CPUs, the peak of resident
    memory is measured, which needs Linux. Weights are random. Raises UserError when the memory is too
    small or cannot be measured.
    """
    if device == "cpu" and not _MARK.exists():
        raise UserError(f"Memory can be measured on Linux only; leave {setting('measure')} out.")
    micro_batches = 2 if config.accumulate > 1 else 1
    alone = dataclasses.replace(config.cluster, num_workers=1)
    size = micro_batches * rows
    config = dataclasses.replace(config, batch_size=size, accumulate=micro_batches, cluster=alone)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak, config, spec, device, torch.get_num_threads(), carried()).result()
        except (BrokenProcessPool, torch.OutOfMemoryError) as error:
            raise UserError(
                f"This machine's memory is too small for two steps of {rows} images at a time; measure fewer."
            ) from error


def _peak(config: Recipe, spec: ModelSpec, device: str, threads: int, own_code: dict[str, Any]) -> int:
    take(own_code)
    torch.set_num_threads(threads)
    one_head = {"network.head_channels": 0} if isinstance(config.network, ADM) else {}
    tiny = override(config, _TINY | one_head)
    _take_steps(tiny, dataclasses.replace(spec, network=tiny.network))  # loads the libraries
    before = _begin(device)
    _take_steps(config, spec, device)
    return (torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")) - before


def _begin(device: str) -> int:
    """Reset the peak, and return the memory that is in use, in bytes."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # else freed memory is reused, and does not count
    _MARK.write_text("5")
    return _resident("VmRSS")


def _resident(field: str) -> int:
    """Return a field of the process's status, in bytes. (The peak of getrusage includes the parent's.)"""
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def _take_steps(config: Recipe, spec: ModelSpec, device: str = "cpu") -> None:
    denoiser = dataclasses.replace(spec.diffusion, boundary="none")
    teacher = Model(dataclasses.replace(spec, diffusion=denoiser)) if config.method.needs_teacher else None
    distance = untrained_distance(config)
    if isinstance(distance, torch.nn.Module):
        distance.to(device)
    engine = Engine(config, spec, device=device, teacher=teacher, distance=distance)
    rows = config.batch_size
    images = torch.zeros(rows, *spec.shape, dtype=torch.uint8)
    for _ in range(2):
        engine.one_step(Batch(images, torch.zeros(rows, dtype=torch.int64)))
