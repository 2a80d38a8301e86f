"""Writing of a shard's file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cm_ray.data.interface.arrow import pa, pq
from cm_ray.data.interface.fingerprint import ContentHash
from cm_ray.data.interface.source import Labels, Pixels
from cm_ray.data.shards.manifest import Shape, Shard, rows_per_group, schema_of
from cm_ray.storage.files import sha256_of, written_aside


class ShardWriter:
    """Writer of a shard that `writing_shard` has opened; `shard` describes the finished file."""

    shard: Shard

    def __init__(self, aside: Path, shape: Shape) -> None:
        self.shape = shape
        self._rows = 0
        self.hash = ContentHash()
        self._file = pq.ParquetWriter(
            aside,
            schema_of(shape),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )

    def write(self, images: Pixels, labels: Labels) -> None:
        """Append images (n, c, h, w) and labels (n,) as row groups. Raises ValueError on another shape."""
        if images.shape != (len(labels), *self.shape):
            raise ValueError(f"{images.shape} images and {len(labels)} labels in a shard of {self.shape}")
        pixels = pa.py_buffer(np.ascontiguousarray(images, dtype=np.uint8))
        numbers = np.ascontiguousarray(labels, dtype="<i8")
        kind = pa.binary(math.prod(self.shape))
        column = pa.FixedSizeBinaryArray.from_buffers(kind, len(labels), [None, pixels])
        table = pa.Table.from_arrays([column, pa.array(numbers)], schema=schema_of(self.shape))
        self._file.write_table(table, row_group_size=rows_per_group(self.shape))
        self.hash.add(images, labels)
        self._rows += len(labels)

    def close(self) -> None:
        """Write the footer and close the file."""
        self._file.close()

    def describe(self, aside: Path, name: str) -> Shard:
        """Describe the closed file, which will be called `name`."""
        return Shard(
            file=name,
            rows=self._rows,
            bytes=aside.stat().st_size,
            sha256=sha256_of(aside),
            content=self.hash.content,
        )


@contextlib.contextmanager
def writing_shard(path: Path, shape: Shape) -> Iterator[ShardWriter]:
    """Yield a writer of images of `shape` (c, h, w); the file is renamed to `path` when it is complete."""
    with written_aside(path) as aside:
        writer = ShardWriter(aside, shape)
        try:
            yield writer
        finally:
            writer.close()
        writer.shard = writer.describe(aside, path.name)


def write_shard(path: Path, images: Pixels, labels: Labels) -> Shard:
    """Write images (n, c, h, w) and labels (n,) as one shard, atomically."""
    channels, height, width = images.shape[1:]
    with writing_shard(path, (channels, height, width)) as writer:
        writer.write(images, labels)
    return writer.shard
