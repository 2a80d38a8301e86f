"""Order in which training reads the images: a function of (seed, epoch), so that none of it is saved.

There are two orders. In memory: the stream of samples is one permutation of all images after another, and
global batch k is the items k*B to (k+1)*B of it, for any number of workers. Streamed: an epoch permutes the
row groups of all shards and cuts them into one run of whole batches per worker, which shuffles the rows of a
few row groups at a time. This order depends on the number of workers, and the images at the end of an epoch
that do not fill a global batch are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.interface.source import Labels, Pixels
from cm_ray.data.shards.manifest import Manifest, Shape, read_rows, rows_per_group
from cm_ray.errors import UserError

_SAMPLES, _CHUNKS, _ROWS = 0, 1, 2  # purposes of permutations: each has random numbers of its own


def _generator(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


@lru_cache(maxsize=4)
def _permutation(seed: int, n: int, epoch: int) -> NDArray[np.int64]:
    order = _generator(seed, epoch, _SAMPLES).permutation(n)
    order.flags.writeable = False
    return order


def memory_indices(seed: int, n: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return positions start to stop of the endless stream of samples: indices into n images.

    The stream is the permutation of epoch 0, then of epoch 1, …; each holds every image once. Global
    batch k of B samples is `memory_indices(seed, n, k * B, (k + 1) * B)`.
    """
    if n < 1 or not 0 <= start <= stop:
        raise ValueError(f"positions {start} to {stop} of {n} images")
    pieces = [np.empty(0, np.int64)]
    while start < stop:
        epoch, inside = divmod(start, n)
        piece = _permutation(seed, n, epoch)[inside : inside + stop - start]
        pieces.append(piece)
        start += len(piece)
    return np.concatenate(pieces)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `start` to `stop` of a shard, within one row group."""

    file: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Rows that a worker reads and shuffles together."""

    chunks: tuple[Chunk, ...]
    """Places of its rows in the shards."""
    seed: tuple[int, ...]
    """Entropy of the permutation of its rows; empty leaves them in the order of the chunks."""
    skip: int = 0
    """Rows that were used before a resume; they are dropped from the front after the permutation."""

    @property
    def rows(self) -> int:
        """Number of rows that `read_unit` returns."""
        return sum(chunk.stop - chunk.start for chunk in self.chunks) - self.skip


def steps_per_epoch(count: int, global_batch: int) -> int:
    """Return the number of whole global batches in an epoch of streamed images.

    Raises UserError when there is none.
    """
    if count < global_batch:
        raise UserError(
            f"The data holds {count} images, fewer than the global batch of {global_batch}; "
            "take a smaller batch or keep the data in memory (cache=memory)."
        )
    return count // global_batch


def stream_units(
    manifest: Manifest,
    *,
    seed: int,
    rank: int,
    world: int,
    batch_per_worker: int,
    start_step: int = 0,
    unit_chunks: int = 8,
) -> Iterator[Unit]:
    """Yield, without end, the units that worker `rank` of `world` reads from global step `start_step` on.

    The units' rows, one after the other, are the worker's samples: step k takes the next
    `batch_per_worker` of them (units need not end where a batch ends). `unit_chunks` row groups are
    shuffled together. In an epoch every image comes at most once over all workers. From a later
    `start_step` the samples are exactly those that an uninterrupted stream has from there on. Raises
    UserError when the data is smaller than the global batch.
    """
    steps = steps_per_epoch(manifest.count, world * batch_per_worker)
    if not (0 <= rank < world and start_step >= 0 and unit_chunks > 0):
        raise ValueError(f"rank {rank} of {world}, start_step {start_step}, unit_chunks {unit_chunks}")
    return _units(manifest, seed, rank, steps, batch_per_worker, start_step, unit_chunks)


def whole_units(manifest: Manifest, unit_chunks: int = 8) -> Iterator[Unit]:
    """Yield units that together hold each image once, in the order of the shards."""
    chunks = _chunks(manifest)
    for first in range(0, len(chunks), unit_chunks):
        yield Unit(chunks=tuple(chunks[first : first + unit_chunks]), seed=())


def _units(
    manifest: Manifest, seed: int, rank: int, steps: int, batch: int, start_step: int, unit_chunks: int
) -> Iterator[Unit]:
    epoch, step = divmod(start_step, steps)
    used = step * batch
    while True:
        chunks = _cut(_shuffled_chunks(manifest, seed, epoch), rank * steps * batch, steps * batch)
        for index, first in enumerate(range(0, len(chunks), unit_chunks)):
            group = tuple(chunks[first : first + unit_chunks])
            rows = sum(chunk.stop - chunk.start for chunk in group)
            if used < rows:
                yield Unit(chunks=group, seed=(seed, epoch, _ROWS, rank, index), skip=used)
            used = max(0, used - rows)
        epoch += 1


def _chunks(manifest: Manifest) -> list[Chunk]:
    """Return all row groups of all shards."""
    rows = rows_per_group(manifest.shape)
    return [
        Chunk(shard.file, start, min(shard.rows, start + rows))
        for shard in manifest.shards
        for start in range(0, shard.rows, rows)
    ]


def _shuffled_chunks(manifest: Manifest, seed: int, epoch: int) -> list[Chunk]:
    """Return the row groups in the order of an epoch."""
    chunks = _chunks(manifest)
    return [chunks[i] for i in _generator(seed, epoch, _CHUNKS).permutation(len(chunks))]


def _cut(chunks: list[Chunk], start: int, rows: int) -> list[Chunk]:
    """Return rows start to start+rows of the concatenation of chunks; those on an edge are cut."""
    pieces, position = [], 0
    for chunk in chunks:
        low = max(start - position, 0)
        high = min(start + rows - position, chunk.stop - chunk.start)
        if low < high:
            pieces.append(Chunk(chunk.file, chunk.start + low, chunk.start + high))
        position += chunk.stop - chunk.start
    return pieces


def read_unit(folder: Path, unit: Unit, shape: Shape) -> tuple[Pixels, Labels]:
    """Read a unit's rows from the shards in `folder`: images (n, c, h, w) and labels (n,), permuted.

    Raises UserError naming a shard that is missing or corrupt.
    """
    read = [read_rows(folder / chunk.file, chunk.start, chunk.stop, shape) for chunk in unit.chunks]
    images = np.concatenate([images for images, _ in read])
    labels = np.concatenate([labels for _, labels in read])
    if not unit.seed:
        return images[unit.skip :], labels[unit.skip :]
    order = _generator(*unit.seed).permutation(len(labels))[unit.skip :]
    return images[order], labels[order]
