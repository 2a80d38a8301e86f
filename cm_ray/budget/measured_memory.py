"""Peak memory of a training, measured in steps that are taken in a separate process."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import math
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cm_ray.budget.evaluation_memory import untrained_extractor
from cm_ray.budget.memory import untrained_distance
from cm_ray.budget.stand_in import stand_in_teacher
from cm_ray.core.out_of_memory import is_out_of_memory
from cm_ray.data.image_set import ImageSet
from cm_ray.errors import UserError, setting
from cm_ray.networks.model import ModelSpec
from cm_ray.own_code import carried, take
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import Checkpoint, CheckpointStore
from cm_ray.settings.tree import flatten, override
from cm_ray.training.batch import Batch, Share
from cm_ray.training.communication import SingleWorker
from cm_ray.training.engine import Engine
from cm_ray.training.evaluator import Evaluator

_STATUS, _MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_TINY = {
    "network.channels": 32,
    "network.channel_mult": (1,),
    "network.blocks": 1,
    "network.norm_groups": 32,
    "network.head_channels": 0,
    "network.attention_resolutions": (),
    "distance": "l2",
}


def measured_memory(
    config: Recipe, spec: ModelSpec, rows: int, device: str = "cpu", *, whole: bool = False
) -> int:
    """Return the peak memory, in bytes, of two steps of a worker with `rows` images at a time.

    whole: write a checkpoint and score samples after each step, as a training does. The memory of PyTorch and
    of the libraries themselves is not included. On CPUs, the peak of resident memory is measured, which needs
    Linux. Weights are random. Raises UserError when the memory is too small or cannot be measured.
    """
    check_measurable(device)
    micro_batches = 2 if config.accumulate > 1 else 1
    alone = dataclasses.replace(config.cluster, num_workers=1)
    size = micro_batches * rows
    config = dataclasses.replace(config, batch_size=size, accumulate=micro_batches, cluster=alone)
    work = partial(_peak, config, spec, device, whole, torch.get_num_threads(), carried())
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work).result()
        except (BrokenProcessPool, MemoryError, RuntimeError) as error:
            if not (isinstance(error, BrokenProcessPool) or is_out_of_memory(error)):
                raise
            raise UserError(
                f"This machine's memory is too small for two steps of {rows} images at a time; measure fewer."
            ) from error


def check_measurable(device: str) -> None:
    """Raise UserError if the memory of a training on the device cannot be measured here."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"There is no GPU here whose memory could be measured; set {setting('device')} to cpu, or leave "
            f"{setting('measure')} out."
        )
    if device == "cpu" and not _MARK.exists():
        raise UserError(f"Memory can be measured on Linux only; leave {setting('measure')} out.")


def _peak(
    config: Recipe, spec: ModelSpec, device: str, whole: bool, threads: int, own_code: dict[str, Any]
) -> int:
    take(own_code)
    torch.set_num_threads(threads)
    small = tiny(config)
    _take_steps(small, dataclasses.replace(spec, network=small.network), whole=whole)  # loads the libraries
    before = _begin(device)
    _take_steps(config, spec, device, whole=whole)
    return (torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")) - before


def tiny(config: Recipe) -> Recipe:
    """Return the recipe with a network of next to no memory, which needs the same libraries."""
    known = flatten(config)  # not every network has levels, and not every method a distance
    return override(config, {path: value for path, value in _TINY.items() if path in known})


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


def _take_steps(config: Recipe, spec: ModelSpec, device: str = "cpu", *, whole: bool) -> None:
    teacher = stand_in_teacher(config, spec)
    distance = untrained_distance(config)
    if isinstance(distance, torch.nn.Module):
        distance.to(device)
    engine = Engine(config, spec, device=device, teacher=teacher, distance=distance)
    images = torch.zeros(config.batch_size, *spec.shape, dtype=torch.uint8)
    batch = Batch(images, torch.zeros(config.batch_size, dtype=torch.int64))
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), keep=1)
        finish = _scored_steps(engine, batch, store, Path(folder)) if whole else None
        for _ in range(2):
            engine.one_step(batch)
            if finish:
                finish()
        store.wait()  # else the folder is removed while a checkpoint is written to it


def _scored_steps(engine: Engine, batch: Batch, store: CheckpointStore, folder: Path) -> Callable[[], None]:
    """Return what a training does after a step: write a checkpoint, and score as many samples as fit at once.

    The extractor has random weights. folder: of the scores.
    """
    recipe, rows = engine.config, engine.config.sampled_at_once
    extractor = untrained_extractor(recipe.evaluation.extractor)
    evaluation = dataclasses.replace(
        recipe.evaluation,
        extractor="none",
        samples=max(2, rows),
        grid=math.isqrt(rows),
        samplers=recipe.evaluation.samplers[:1],
        labels="",
    )
    data = ImageSet(batch.images, batch.labels, (), "", "zeros")
    evaluator = Evaluator(
        dataclasses.replace(recipe, evaluation=evaluation), data, engine.device, Share(), SingleWorker()
    )
    if extractor is not None:
        extractor.network.to(engine.device)
        evaluator.extractor = extractor
    written: list[Checkpoint] = []

    def finish() -> None:
        store.wait()
        written.clear()
        written.append(engine.checkpoint())  # kept as on a disk so slow that it is written until the next one
        store.save(written[0])
        evaluator.evaluate(engine.averaged_model(), engine.step, folder)

    return finish
