"""Arrays and tensors of images as uint8 pixels: the meaning of their axes and of their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cm_ray.data.interface.classes import as_labels
from cm_ray.data.interface.source import Batch, Labels, Pixels, ReadOptions
from cm_ray.data.pictures.images import BATCH_ROWS, pixel_batches
from cm_ray.errors import UserError

_HOW = "give uint8 pixels, or floats that span [-1, 1] or [0, 1]"


def as_array(values: object) -> NDArray[Any]:
    """Return an array or a tensor, of any device, as an array; a tensor's bfloat16 becomes float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    tensor = values.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


@dataclass(frozen=True, slots=True)
class Scale:
    """Range of floating-point pixels."""

    low: float
    """Value of black: -1 or 0. White is 1."""
    name: str
    """Name of the images in messages."""

    @classmethod
    def of(cls, low: float, high: float, name: str) -> Scale:
        """Return the range of values whose least is `low` and whose greatest is `high`.

        They are in [-1, 1] if one is below -0.5, and in [0, 1] if none is negative and they lie on both sides
        of 0.5. Raises UserError for any other values: they could be of either range, or of none.
        """
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"The pixels of {name} are infinite or not numbers in places; {_HOW}.")
        if low < -1 or high > 1:
            raise UserError(f"The floating-point pixels of {name} go from {low:g} to {high:g}; {_HOW}.")
        if low < -0.5:
            return cls(-1.0, name)
        if 0 <= low < 0.5 < high:
            return cls(0.0, name)
        raise UserError(
            f"The floating-point pixels of {name} go from {low:g} to {high:g}, which could be of the range "
            "[-1, 1] or [0, 1]; give uint8 pixels."
        )

    def pixels(self, values: NDArray[Any]) -> Pixels:
        """Return the values as uint8, rounded to the nearest. Raises UserError when one is out of range."""
        low, high = float(values.min()), float(values.max())
        if not (self.low <= low and high <= 1):
            raise UserError(
                f"A floating-point pixel of {self.name} is {low if low < self.low else high:g}, outside of "
                f"the range [{self.low:g}, 1] of the first images; {_HOW}."
            )
        unit = (values.astype(np.float32) - self.low) / (1 - self.low)
        return np.rint(unit * 255).astype(np.uint8)


def check_dtype(array: NDArray[Any], name: str) -> None:
    """Raise UserError when an array is neither of uint8 nor of floating-point numbers."""
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UserError(f"The pixels of {name} are {array.dtype}; {_HOW}.")


def channels_last(array: NDArray[Any], axes: int, name: str) -> NDArray[Any]:
    """Return a view with the axes (…, h, w, c), c 1 or 3; a missing axis of channels is added.

    axes: 3 for one image, 4 for several. An array with one axis less holds grey images. Raises UserError for
    other shapes, and for those that could be read in two ways.
    """
    shape = array.shape
    wanted = ("(h, w, c) or (c, h, w)", "(n, h, w, c) or (n, c, h, w)")[axes == 4]
    if array.size == 0:
        raise UserError(f"There are no pixels in {name}, whose shape is {shape}; give at least one image.")
    first, last = (shape[-3] if len(shape) >= 3 else 0) in (1, 3), shape[-1:] in ((1,), (3,))
    if len(shape) == axes - 1 and not first and not last:
        return array[..., None]
    if len(shape) == axes and first != last:
        return np.moveaxis(array, -3, -1) if first else array
    if (first and last) or len(shape) == axes - 1:
        raise UserError(
            f"The shape of {name} is {shape}, and which axis holds the channels is not clear; give {wanted} "
            "with 1 or 3 channels, of images larger than 3x3."
        )
    if len(shape) == axes and (shape[-1] == 4 or shape[-3] == 4):
        raise UserError(f"The shape of {name} is {shape}, with 4 channels; drop the transparency.")
    raise UserError(f"The shape of {name} is {shape}; give {wanted} with 1 or 3 channels.")


def checked_labels(labels: object, count: int, name: str) -> Labels:
    """Return labels as int64 (count,); None gives -1 for each. Raises UserError when they do not fit."""
    if labels is None:
        return np.full(count, -1, np.int64)
    array = as_array(labels)
    if array.shape != (count,):
        raise UserError(
            f"The labels of {name} have the shape {array.shape}; give an integer for each of its {count} "
            "images."
        )
    if array.dtype.kind not in "iu":
        raise UserError(f"The labels of {name} are {array.dtype}; number the classes 0, 1, 2 and so on.")
    return as_labels(array)


@dataclass(frozen=True, slots=True)
class PixelArray:
    """Images in memory, checked when it is made."""

    images: NDArray[Any]
    """(n, h, w, c), uint8 or floating-point."""
    labels: Labels
    """(n,), -1 where there is none."""
    scale: Scale | None
    """Range of floating-point images."""
    name: str
    """Name in messages."""

    @classmethod
    def of(cls, images: object, labels: object, name: str) -> PixelArray:
        """Check an array or tensor (n, c, h, w), (n, h, w, c) or (n, h, w) and its labels (n,) or None.

        Raises UserError when they are not images, or could be read in two ways.
        """
        array = as_array(images)
        check_dtype(array, name)
        pixels = channels_last(array, 4, name)
        scale = None
        if array.dtype != np.uint8:
            scale = Scale.of(float(array.min()), float(array.max()), name)
        return cls(pixels, checked_labels(labels, len(pixels), name), scale, name)

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield the images in batches of at most 1,024; see `Part.read`."""
        for start in range(0, len(self.images), BATCH_ROWS):
            chunk = self.images[start : start + BATCH_ROWS]
            pixels = self.scale.pixels(chunk) if self.scale else chunk
            yield from pixel_batches(pixels, self.labels[start : start + BATCH_ROWS], self.name, options)
