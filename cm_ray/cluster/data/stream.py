"""Ray Data: from shards to a worker's batches, in an order that is a function of (seed, epoch).

A custom Ray Data source reads *units*, each a handful of row groups drawn from all over the shards and
permuted inside (see `cm_ray.data.order`). Which units a worker reads, from any step on, is computed, so a
resumed run opens the stream at the very next batch without reading what came before. Starting a Ray Data
execution costs about half a second, so executions run on over the ends of epochs.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from cm_ray.cluster.runtime.connect import DATA_CPUS
from cm_ray.data import image_set
from cm_ray.data.blocks import read_block
from cm_ray.data.order import Unit, stream_units, whole_units
from cm_ray.data.shards import Manifest
from cm_ray.training.batch import Batch, Share

READ_AHEAD_BYTES = 256 << 20
"""Images that one Ray Data execution reads. An execution that has more to read than it may buffer polls
without rest, in the training process, where it takes a good part of a core from the training. One that
has read everything sleeps; so executions are short, and follow one another."""

READERS = 2
"""Read tasks at a time for each training worker; starting more processes takes longer than they save."""

MOST_UNITS = 64
"""Units of an execution, however small they are: each is a task."""

AUTO_MEMORY_BYTES = 1 << 30
"""cache="auto" keeps data sets up to this size in memory."""


class UnitSource(Datasource):  # type: ignore[misc]
    """A Ray Data source of fixed-binary images: one block per unit."""

    def __init__(self, folder: Path, manifest: Manifest, units: list[Unit]) -> None:
        super().__init__()
        self.folder, self.manifest, self.units = folder, manifest, units

    def get_name(self) -> str:
        """Name the read tasks on the dashboard."""
        return "Shards"

    def estimate_inmemory_data_size(self) -> int:
        """Return the bytes of all units."""
        return sum(_bytes(unit, self.manifest) for unit in self.units)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one task per unit, whatever parallelism is asked for: the order is the point."""
        return [
            ReadTask(
                partial(read_block, self.folder, unit, self.manifest.shape),
                BlockMetadata(unit.rows, _bytes(unit, self.manifest), None, None),
            )
            for unit in self.units
        ]


def batches(
    folder: Path, manifest: Manifest, *, cache: str, seed: int, batch_size: int, share: Share, start_step: int
) -> Iterator[Batch]:
    """Yield this worker's share of every global batch, endlessly, from global step `start_step` on.

    batch_size: of the global batch. cache: ``memory`` (1 and N workers see the same global batches),
    ``stream`` (data of any size; every worker has its own part of each epoch) or ``auto``.
    """
    in_memory = cache == "memory" or (cache == "auto" and manifest.pixel_bytes <= AUTO_MEMORY_BYTES)
    chosen = memory_batches if in_memory else stream_batches
    return chosen(folder, manifest, seed=seed, batch_size=batch_size, share=share, start_step=start_step)


def memory_batches(
    folder: Path, manifest: Manifest, *, seed: int, batch_size: int, share: Share, start_step: int
) -> Iterator[Batch]:
    """Stream the shards once, keep them, and yield batches of the permuted epochs, none dropping a row."""
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
    for some in stream:
        yield Batch(*some)


def stream_batches(
    folder: Path, manifest: Manifest, *, seed: int, batch_size: int, share: Share, start_step: int
) -> Iterator[Batch]:
    """Yield batches as Ray Data reads them; an epoch drops the rows that do not fill a global batch."""
    rows = batch_size // share.world
    units = stream_units(
        manifest,
        seed=seed,
        rank=share.rank,
        world=share.world,
        batch_per_worker=rows,
        start_step=start_step,
    )
    return rebatched(_blocks(folder, manifest, units), rows)


def load_images(folder: Path, manifest: Manifest) -> tuple[torch.Tensor, torch.Tensor]:
    """Read all images (n, c, h, w) uint8 and labels (n,) int64 through Ray Data, in the shards' order."""
    images = torch.empty((manifest.count, *manifest.shape), dtype=torch.uint8)
    labels = torch.empty(manifest.count, dtype=torch.int64)
    done = 0
    for block in _blocks(folder, manifest, whole_units(manifest)):
        span = slice(done, done + len(block.images))
        images[span], labels[span] = block.images, block.labels
        done = span.stop
    return images, labels


def rebatched(blocks: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """Cut blocks of any length into batches of `rows`; only those that straddle blocks are copied."""
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


def _blocks(folder: Path, manifest: Manifest, units: Iterable[Unit]) -> Iterator[Batch]:
    """Yield a block of images per unit, in order, read by Ray Data ahead of use."""
    units = iter(units)
    while some := _read_ahead(units, manifest):
        with contextlib.closing(_Execution(folder, manifest, some)) as execution:
            for table in execution:
                yield _to_batch(table, manifest.shape)


class _Execution:
    """One Ray Data execution over some units. Close it after use."""

    def __init__(self, folder: Path, manifest: Manifest, units: list[Unit]) -> None:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.op_resource_reservation_enabled = False  # READ_AHEAD_BYTES is the budget
        dataset = ray.data.read_datasource(
            UnitSource(folder, manifest, units),
            num_cpus=DATA_CPUS,
            concurrency=min(READERS, len(units)),
            override_num_blocks=len(units),
        )
        batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
        self._tables = iter(batches)

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield a table per unit."""
        return self._tables

    def close(self) -> None:
        """Stop reading."""
        self._tables.close()


def _read_ahead(units: Iterator[Unit], manifest: Manifest) -> list[Unit]:
    """Take the units of one execution."""
    some: list[Unit] = []
    while len(some) < MOST_UNITS and sum(_bytes(unit, manifest) for unit in some) < READ_AHEAD_BYTES:
        unit = next(units, None)
        if unit is None:
            break
        some.append(unit)
    return some


def _bytes(unit: Unit, manifest: Manifest) -> int:
    return unit.rows * (math.prod(manifest.shape) + 8)  # pixels and an int64 label


def _to_batch(table: pa.Table, shape: tuple[int, int, int]) -> Batch:
    """View a block's fixed-size binaries as images; Ray's memory is read-only, so they are copied once."""
    column = table.column("image").combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    pixels = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1], np.uint8, len(column) * pixels, column.offset * pixels)
    images = torch.from_numpy(raw.reshape(-1, *shape).copy())
    return Batch(images, torch.from_numpy(table.column("label").to_numpy().copy()))
