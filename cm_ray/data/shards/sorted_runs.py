"""External sort of images by their random keys, with little memory.

The images of a part are written in runs, each sorted by the keys. All images of a range of keys then lie in
one piece of every run, so that a shard, which is a range of keys, takes few reads. A run of n images is the
keys (uint64), the labels (int64) and the pixels (c*h*w bytes each), one after the other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.interface.permutation import KeyRange, Keys, KeyStream, key_ranges
from cm_ray.data.interface.source import Labels, Pixels
from cm_ray.data.shards.manifest import Shape, Shard, rows_per_group
from cm_ray.data.shards.shard_file import writing_shard
from cm_ray.errors import UserError, setting
from cm_ray.storage.files import written_aside

MEMORY_BYTES = 64 << 20
"""Bytes of images that are sorted at a time; two copies of them are in memory."""
_WORD = 8  # bytes of a key and of a label


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file with the sorted runs of one part."""

    path: Path
    runs: tuple[int, ...]
    """Number of images of each run."""

    def size(self, shape: Shape) -> int:
        """Return the size of the file in bytes, for images of a shape (c, h, w)."""
        return sum(self.runs) * _row_bytes(shape)


class RunWriter:
    """Writer of the runs of one part; `runs` has the number of images of each finished one."""

    def __init__(self, file: IO[bytes], shape: Shape, keys: KeyStream) -> None:
        self.shape = shape
        self.runs: list[int] = []
        self._file, self._keys = file, keys
        self._images: list[Pixels] = []
        self._labels: list[Labels] = []
        self._most = _rows_at_once(shape)

    def write(self, images: Pixels, labels: Labels) -> None:
        """Append images (n, c, h, w) and labels (n,) in the order of the source."""
        while len(labels):
            room = self._most - sum(map(len, self._labels))
            self._images.append(images[:room])
            self._labels.append(labels[:room])
            if len(labels) >= room:
                self.flush()
            images, labels = images[room:], labels[room:]

    def flush(self) -> None:
        """Write the images that are waiting as a run."""
        if not self._labels:
            return
        images, labels = np.concatenate(self._images), np.concatenate(self._labels)
        self._images, self._labels = [], []
        keys = self._keys.take(len(labels))
        order = np.argsort(keys, kind="stable")
        for values in (keys[order], labels.astype("<i8")[order], images[order]):
            values.tofile(self._file)
        self.runs.append(len(labels))


@contextlib.contextmanager
def writing_runs(path: Path, shape: Shape, keys: KeyStream) -> Iterator[RunWriter]:
    """Yield a writer of images of `shape` (c, h, w); the file is renamed to `path` when it is complete."""
    with written_aside(path) as aside, aside.open("wb") as file:
        writer = RunWriter(file, shape, keys)
        yield writer
        writer.flush()


def write_shuffled(path: Path, files: Sequence[RunFile], shape: Shape, keys: KeyRange) -> Shard:
    """Write the images of a range of keys, in the order of the keys, as a shard.

    files: the runs of all parts, in the order of the source. Raises UserError when one is missing or cut off.
    """
    group = rows_per_group(shape)
    rows = max(1, _rows_at_once(shape) // group) * group
    every = np.concatenate([run.keys(keys) for run in _runs(files, shape)])
    ranges = key_ranges(every, rows)
    with writing_shard(path, shape) as writer:
        for low, high in [*ranges[:-1], (ranges[-1][0], keys[1])]:
            writer.write(*_sorted(files, shape, (low, high)))
    return writer.shard


def _sorted(files: Sequence[RunFile], shape: Shape, keys: KeyRange) -> tuple[Pixels, Labels]:
    """Return images (n, c, h, w) and labels (n,) of a range of keys, in the order of the keys."""
    pieces = [run.rows(keys) for run in _runs(files, shape)]
    found, labels, images = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.argsort(found, kind="stable")
    return images[order], labels[order]


@dataclass(frozen=True, slots=True)
class _Run:
    """A run in an open file."""

    file: IO[bytes]
    start: int
    """Offset of the run in bytes."""
    count: int
    shape: Shape

    def keys(self, between: KeyRange) -> Keys:
        """Return its keys in a range."""
        keys: Keys = self._read(np.uint64, 0, self.count)
        return keys[self._slice(keys, between)]

    def rows(self, between: KeyRange) -> tuple[Keys, Labels, Pixels]:
        """Return keys (n,), labels (n,) and images (n, c, h, w) of a range of keys."""
        keys = self._read(np.uint64, 0, self.count)
        piece, pixels = self._slice(keys, between), math.prod(self.shape)
        labels, images = self.count * _WORD, 2 * self.count * _WORD
        count = piece.stop - piece.start
        return (
            keys[piece],
            self._read(np.int64, labels + piece.start * _WORD, count),
            self._read(np.uint8, images + piece.start * pixels, count * pixels).reshape(-1, *self.shape),
        )

    @staticmethod
    def _slice(keys: Keys, between: KeyRange) -> slice:
        low, high = between
        first = int(np.searchsorted(keys, np.uint64(low)))
        return slice(first, len(keys) if high is None else int(np.searchsorted(keys, np.uint64(high))))

    def _read(self, kind: type[Any], offset: int, count: int) -> NDArray[Any]:
        self.file.seek(self.start + offset)
        values = np.fromfile(self.file, kind, count)
        if len(values) < count:
            raise UserError(f"{self.file.name} is cut off; repeat the command.")
        return values


def _runs(files: Sequence[RunFile], shape: Shape) -> Iterator[_Run]:
    """Yield all runs in the order of the source, each with its file open."""
    for file in files:
        try:
            stream = file.path.open("rb")
        except OSError as error:
            raise UserError(
                f"Could not read {file.path} ({error.strerror}); choose {setting('out')} on storage that "
                "all nodes share."
            ) from error
        with stream:
            start = 0
            for count in file.runs:
                yield _Run(stream, start, count, shape)
                start += count * _row_bytes(shape)


def _row_bytes(shape: Shape) -> int:
    return 2 * _WORD + math.prod(shape)


def _rows_at_once(shape: Shape) -> int:
    return max(1, MEMORY_BYTES // _row_bytes(shape))
