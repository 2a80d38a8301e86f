"""Images in the forms that users give, opened so that they can be read from the start repeatedly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import IterableDataset

from cm_ray.data.datasets import RayImages, TorchImages, is_map_style, is_ray_dataset
from cm_ray.data.image_set import ImageSet
from cm_ray.data.interface.source import Batch, Progress, ReadOptions, Source
from cm_ray.data.open_source import open_source
from cm_ray.data.pictures.pixel_arrays import PixelArray
from cm_ray.errors import UserError
from cm_ray.storage.files import absolute

_ROWS_PER_PART = 8192
_KINDS = (
    "a folder, a zip or a tar archive of images, a folder of shards, Parquet, an .npz, the name of a data "
    "set, a tensor or array of images, a tuple (images, labels), a torch Dataset or a ray.data.Dataset"
)


class OpenedImages(Protocol):
    """Images in any form."""

    @property
    def name(self) -> str:
        """Short name, for messages and names of folders."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, …; empty when there are none or they are not known."""

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield all images in batches of at most 1,024, in their order; see `Part.read` for the errors."""


@dataclass(frozen=True, slots=True)
class SourceImages:
    """Images of a file, a folder or a named data set, one part after the other."""

    source: Source

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the source's classes."""
        return self.source.class_names

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield all images in the order that shards of the source have."""
        for part in self.source.parts(_ROWS_PER_PART):
            yield from part.read(options)


@dataclass(frozen=True, slots=True)
class ArrayImages:
    """Images in memory."""

    array: PixelArray
    name: str
    class_names: tuple[str, ...] = ()

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield all images in their order."""
        return self.array.read(options)


def open_images(data: object, options: ReadOptions, progress: Progress | None = None) -> OpenedImages:
    """Open images in any form but a folder of shards.

    data: see `load_images`. options, progress: see `open_source`. Raises UserError when `data` is
    something else, or a split or columns are named for data in memory.
    """
    if isinstance(data, Path):  # a path is not a data set's name, even if it reads like one
        data = str(absolute(data))
    if isinstance(data, str):
        return SourceImages(open_source(data, progress=progress, options=options))
    if options.split:
        raise UserError(
            f"The data is a {type(data).__name__}, which has no split {options.split!r}; leave split out."
        )
    if options.columns:
        raise UserError(f"The data is a {type(data).__name__}; leave the names of columns out.")
    return _in_memory(data)


def _in_memory(data: object) -> OpenedImages:
    if isinstance(data, ImageSet):
        pixels = data.images.numpy().transpose(0, 2, 3, 1)
        array = PixelArray(pixels, data.labels.numpy(), None, f"the images of {data.source}")
        return ArrayImages(array, data.source, data.class_names)
    if isinstance(data, torch.Tensor | np.ndarray):
        return ArrayImages(PixelArray.of(data, None, f"the {_kind(data)}"), _kind(data))
    if isinstance(data, tuple):
        return _labelled(data)
    if is_ray_dataset(data):
        return RayImages.of(data)
    if isinstance(data, IterableDataset):
        raise UserError(
            f"The data is {type(data).__name__}, an iterable data set, which has no order to return to; give "
            "a map-style torch Dataset or a ray.data.Dataset."
        )
    if is_map_style(data):
        return TorchImages(data, type(data).__name__)
    raise UserError(f"The data is of type {type(data).__name__}; give {_KINDS}.")


def _labelled(data: tuple[object, ...]) -> ArrayImages:
    if len(data) != 2 or not isinstance(data[0], torch.Tensor | np.ndarray):
        raise UserError(
            f"The data is a tuple of {len(data)} ({', '.join(type(one).__name__ for one in data)}); give "
            "(images, labels), the images as a tensor or an array."
        )
    kind = _kind(data[0])
    return ArrayImages(PixelArray.of(data[0], data[1], f"the {kind}"), kind)


def _kind(images: object) -> str:
    return "tensor" if isinstance(images, torch.Tensor) else "array"
