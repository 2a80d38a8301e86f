"""A glimpse of images: their shape, their classes and the first block, without reading all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cm_ray.data.agreement import in_agreement
from cm_ray.data.load_images import checked_batches
from cm_ray.data.open_images import open_images
from cm_ray.data.reading import ReadOptions
from cm_ray.data.seen import Seen
from cm_ray.data.shard_options import check_given
from cm_ray.data.shards import Manifest, is_shard_folder, read_rows, rows_per_group

_AS_THEY_ARE = ReadOptions()


@dataclass(frozen=True)
class Glimpse:
    """The shape, the classes and the first block of images."""

    first: Tensor
    """uint8 (b, c, h, w)."""
    class_names: tuple[str, ...]
    """Name of each class; empty without labels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every image."""
        c, h, w = self.first.shape[1:]
        return c, h, w

    def blocks(self) -> Iterator[Tensor]:
        """Yield the first block."""
        yield self.first


def glimpse(data: object, options: ReadOptions = _AS_THEY_ARE) -> Glimpse:
    """Read the first images of a data set in any form that `load_images` takes.

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

    def first_batch(options: ReadOptions) -> Glimpse:
        batch = next(each for each in checked_batches(opened, options, Seen()) if len(each.images))
        labelled = bool((batch.labels >= 0).all())
        names = opened.class_names or (tuple(map(str, range(batch.labels.max() + 1))) if labelled else ())
        return Glimpse(torch.from_numpy(batch.images.transpose(0, 3, 1, 2).copy()), names)

    return in_agreement(first_batch, options)
