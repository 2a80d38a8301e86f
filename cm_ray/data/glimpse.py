"""A glimpse of images: their shape, their classes and a block of them, without reading all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cm_ray.data.image_set import ImageSet
from cm_ray.data.interface.agreement import in_agreement
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.interface.seen import Seen
from cm_ray.data.interface.source import Batch
from cm_ray.data.load_images import checked_batches
from cm_ray.data.open_images import SourceImages, open_images
from cm_ray.data.shards.manifest import Manifest, is_shard_folder, read_rows, rows_per_group
from cm_ray.data.shards.shard_options import check_given
from cm_ray.data.take_survey import survey_of_source

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


def glimpse(path: str | Path, options: ReadOptions = _AS_THEY_ARE) -> Glimpse:
    """Read some images of a path or a named data set, which are spread over it, and the names of all classes.

    Labels are counted in all of it, since the greatest one says how many classes there are. Raises UserError
    as `load_images`.
    """
    if str(path) and is_shard_folder(folder := Path(path).expanduser()):
        manifest = Manifest.load(folder)
        check_given(folder, manifest, options)
        shard = manifest.shards[0]  # rows of shards lie in a random order
        stop = min(shard.rows, rows_per_group(manifest.shape))
        images, _ = read_rows(folder / shard.file, 0, stop, manifest.shape)
        return Glimpse(torch.from_numpy(images.copy()), manifest.class_names)
    opened = open_images(path, options)
    assert isinstance(opened, SourceImages)
    some = _SpreadImages(opened.source)

    def block(options: ReadOptions) -> Tensor:
        batches = (batch.images for batch in checked_batches(some, options, Seen()) if len(batch.images))
        return torch.from_numpy(np.concatenate(list(batches)).transpose(0, 3, 1, 2).copy())

    names = survey_of_source(opened.source, options).class_names
    return Glimpse(in_agreement(block, options), names)


def glimpse_of(images: ImageSet) -> Glimpse:
    """Return the images at equal distances in memory, since they are often sorted by class."""
    rows = torch.linspace(0, len(images) - 1, min(len(images), _PARTS * _ROWS)).round().long()
    return Glimpse(images.images[rows], images.class_names)
