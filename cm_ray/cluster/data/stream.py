"""Streams the images of shards to a worker with Ray Data, in an order that is a function of (seed, epoch).

A custom Ray Data source reads *units*: a few row groups, chosen from all shards, whose rows are permuted
(see `cm_ray.data.shards.order`). The units that a worker reads from any step on are computed, so a resumed
run starts at its next batch without reading the ones before. Starting a Ray Data execution takes about half
a second, so an execution may cover the end of an epoch and the beginning of the next one.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask
from ray.util.annotations import RayDeprecationWarning
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cm_ray.cluster.runtime.plan import DATA_CPUS
from cm_ray.data import image_set
from cm_ray.data.shards.blocks import read_block
from cm_ray.data.shards.manifest import MANIFEST, Manifest
from cm_ray.data.shards.order import Unit, stream_units, whole_units
from cm_ray.remote.witness import Witness
from cm_ray.training.batch import Batch, Share

READ_AHEAD_BYTES = 256 << 20
"""Bytes of images that one Ray Data execution reads. An execution that has more to read than it may buffer
polls all the time and takes a large part of a CPU core from the training process. One that has read
everything sleeps; therefore executions are short and follow one another."""

READERS = 2
"""Concurrent read tasks for each training worker; more processes take longer to start than they save."""

MOST_UNITS = 64
"""The largest number of units of an execution; each unit is a task."""

AUTO_MEMORY_BYTES = 1 << 30
"""Data sets up to this size are kept in memory when `cache` is "auto"."""


class UnitSource(Datasource):  # type: ignore[misc]
    """Ray Data source of images as fixed-size binaries, with one block per unit."""

    def __init__(self, folder: Path, manifest: Manifest, units: list[Unit]) -> None:
        super().__init__()
        self.folder, self.manifest, self.units = folder, manifest, units
        self.seen = Witness.of(folder / MANIFEST)

    def get_name(self) -> str:
        """Return the name of the read tasks on Ray's dashboard."""
        return "Shards"

    def estimate_inmemory_data_size(self) -> int:
        """Return the bytes of all units."""
        return sum(_bytes(unit, self.manifest) for unit in self.units)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one task per unit; `parallelism` is ignored, because the order of the units is fixed."""
        return [
            ReadTask(
                partial(read_block, self.folder, unit, self.manifest.shape, self.seen),
                BlockMetadata(unit.rows, _bytes(unit, self.manifest), None, None),
            )
            for unit in self.units
        ]


def batches(
    folder: Path, manifest: Manifest, *, cache: str, seed: int, batch_size: int, share: Share, start_step: int
) -> Iterator[Batch]:
    """Yield this worker's share of every global batch, endlessly, starting at global step `start_step`.

    batch_size: size of the global batch. cache: "memory" (1 and N workers see the same global batches),
    "stream" (data of any size; each worker reads a share of every epoch) or "auto".
    """
    in_memory = cache == "memory" or (cache == "auto" and manifest.pixel_bytes <= AUTO_MEMORY_BYTES)
    chosen = memory_batches if in_memory else stream_batches
    return chosen(folder, manifest, seed=seed, batch_size=batch_size, share=share, start_step=start_step)


def memory_batches(
    folder: Path, manifest: Manifest, *, seed: int, batch_size: int, share: Share, start_step: int
) -> Iterator[Batch]:
    """Read the shards once, keep the images in memory and yield batches; no epoch drops an image."""
    images, labels = load_images(folder, manifest)
    stream = image_set.memory_batches(
        images,
        labels,
        seed=seed,
        batch_size=batch_size,
        rank=share.rank,
        world=share.world,
        start_step=start_step,
    )
    for batch in stream:
        yield Batch(*batch)


def stream_batches(
    folder: Path, manifest: Manifest, *, seed: int, batch_size: int, share: Share, start_step: int
) -> Iterator[Batch]:
    """Yield batches while Ray Data reads the shards; an epoch drops images that fill no global batch.

    The order is that of as many workers as there may be at most: a worker that takes the place of several
    reads all of their images.
    """
    rows, several = batch_size // share.parts, share.parts // share.world
    streams = []
    for part in range(share.rank * several, (share.rank + 1) * several):
        units = stream_units(
            manifest,
            seed=seed,
            rank=part,
            world=share.parts,
            batch_per_worker=rows,
            start_step=start_step,
        )
        streams.append(rebatched(_blocks(folder, manifest, units, READ_AHEAD_BYTES // several), rows))
    return streams[0] if several == 1 else _joined(streams)


@contextlib.contextmanager
def reading_within(group: PlacementGroup, bundle: int) -> Iterator[None]:
    """Let the tasks that read for this process run in a bundle that is reserved for them, in the block."""
    before = _Execution.options
    _Execution.options = {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, bundle)}
    try:
        yield
    finally:
        _Execution.options = before


def _joined(streams: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
    """Yield the next batches of all streams as one."""
    for parts in zip(*streams, strict=True):
        images, labels = [part.images for part in parts], [part.labels for part in parts]
        yield Batch(torch.cat(images), torch.cat(labels))


def load_images(folder: Path, manifest: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all images, uint8 (n, c, h, w), and labels, int64 (n,), in the order of the source."""
    images = torch.empty((manifest.count, *manifest.shape), dtype=torch.uint8)
    labels = torch.empty(manifest.count, dtype=torch.int64)
    places, done = torch.from_numpy(manifest.places()), 0
    for block in _blocks(folder, manifest, whole_units(manifest)):
        here = places[done : done + len(block.images)]
        images[here], labels[here] = block.images, block.labels
        done += len(block.images)
    return images, labels


def rebatched(blocks: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """Cut blocks of any length into batches of `rows` images; only batches across two blocks are copied."""
    rest_images, rest_labels = torch.empty(0), torch.empty(0)
    for block in blocks:
        images, labels = block.images, block.labels
        if len(rest_images):
            missing = rows - len(rest_images)
            rest_images = torch.cat([rest_images, images[:missing]])
            rest_labels = torch.cat([rest_labels, labels[:missing]])
            images, labels = images[missing:], labels[missing:]
            if len(rest_images) < rows:
                continue
            yield Batch(rest_images, rest_labels)
        whole = len(images) // rows * rows
        for start in range(0, whole, rows):
            yield Batch(images[start : start + rows], labels[start : start + rows])
        rest_images, rest_labels = images[whole:], labels[whole:]


def _blocks(
    folder: Path, manifest: Manifest, units: Iterable[Unit], ahead: int = READ_AHEAD_BYTES
) -> Iterator[Batch]:
    """Yield one block of images per unit, in order; Ray Data reads blocks ahead."""
    units = iter(units)
    while taken := _read_ahead(units, manifest, ahead):
        with contextlib.closing(_Execution(folder, manifest, taken)) as execution:
            for table in execution:
                yield _to_batch(table, manifest.shape)


class _Execution:
    """A Ray Data execution that reads some units. It must be closed after use."""

    options: ClassVar[dict[str, Any] | None] = None
    """Ray's options of the tasks that read, if they have any."""

    def __init__(self, folder: Path, manifest: Manifest, units: list[Unit]) -> None:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.op_resource_reservation_enabled = False  # READ_AHEAD_BYTES is the budget
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RayDeprecationWarning)  # no other argument names a bundle
            dataset = ray.data.read_datasource(
                UnitSource(folder, manifest, units),
                num_cpus=DATA_CPUS / READERS,
                ray_remote_args=self.options,
                concurrency=min(READERS, len(units)),
                override_num_blocks=len(units),
            )
        batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
        self._tables = iter(batches)

    def __iter__(self) -> Iterator[pa.Table]:
        """Return an iterator over one table per unit."""
        return self._tables

    def close(self) -> None:
        """Stop the execution."""
        self._tables.close()


def _read_ahead(units: Iterator[Unit], manifest: Manifest, ahead: int) -> list[Unit]:
    """Take the units of the next execution from the iterator; an empty list at its end."""
    taken: list[Unit] = []
    while len(taken) < MOST_UNITS and sum(_bytes(unit, manifest) for unit in taken) < ahead:
        unit = next(units, None)
        if unit is None:
            break
        taken.append(unit)
    return taken


def _bytes(unit: Unit, manifest: Manifest) -> int:
    return unit.rows * (math.prod(manifest.shape) + 8)  # pixels and an int64 label


def _to_batch(table: pa.Table, shape: tuple[int, int, int]) -> Batch:
    """Return the images and labels of a block, copied once, because Ray's memory is read-only."""
    column = table.column("image").combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    pixels = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1], np.uint8, len(column) * pixels, column.offset * pixels)
    images = torch.from_numpy(raw.reshape(-1, *shape).copy())
    return Batch(images, torch.from_numpy(table.column("label").to_numpy().copy()))
