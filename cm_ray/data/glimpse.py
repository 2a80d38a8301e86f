"""A glimpse of images: their shape, their classes and a block of them, without reading all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cm_ray.data.interface.agreement import in_agreement
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.interface.seen import Seen
from cm_ray.data.interface.source import Batch
from cm_ray.data.load_images import checked_batches
from cm_ray.data.open_images import SourceImages, open_images
from cm_ray.data.shards.manifest import Manifest, is_shard_folder, read_rows, rows_per_group
from cm_ray.data.shards.shard_options import check_given

_AS_THEY_ARE = ReadOptions()
_PARTS, _ROWS = 16, 64


@dataclass(frozen=True)
class Glimpse:
    """The shape, the classes and a block of images that are spread over the data."""

    block: Tensor
    """uint8 (b, c, h, w)."""
    class_names: tuple[str, ...]
    """Name of each class; empty without labels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every image."""
        c, h, w = self.block.shape[1:]
        return c, h, w

    def blocks(self) -> Iterator[Tensor]:
        """Yield the block."""
        yield self.block


class _SpreadImages(SourceImages):
    """About 1,024 images that are spread over a source, since tables are often sorted by class."""

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield the images of some short parts."""
        parts = self.source.parts(_ROWS)
        for place in range(0, len(parts), -(-len(parts) // _PARTS)):
            yield from parts[place].read(options)


def glimpse(data: object, options: ReadOptions = _AS_THEY_ARE) -> Glimpse:
    """Read some images of a data set in any form that `load_images` takes.

    They are spread over files, folders and named data sets, and the first ones of data in memory.

    Raises UserError as `load_images`.
    """
    if isinstance(data, str | Path) and is_shard_folder(folder := Path(data).expanduser()):
        manifest = Manifest.load(folder)
        check_given(folder, manifest, options)
        shard = manifest.shards[0]
        stop = min(shard.rows, rows_per_group(manifest.shape))
        images, _ = read_rows(folder / shard.file, 0, stop, manifest.shape)
        return Glimpse(torch.from_numpy(images.copy()), manifest.class_names)
    opened = open_images(data, options)
    looked_at = _SpreadImages(opened.source) if isinstance(opened, SourceImages) else opened

    def some(options: ReadOptions) -> Glimpse:
        full = (batch for batch in checked_batches(looked_at, options, Seen()) if len(batch.images))
        batches = list(itertools.islice(full, _PARTS))
        images = np.concatenate([batch.images for batch in batches])
        labels = np.concatenate([batch.labels for batch in batches])
        numbered = tuple(map(str, range(labels.max() + 1))) if (labels >= 0).all() else ()
        names = opened.class_names or numbered
        return Glimpse(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), names)

    return in_agreement(some, options)
