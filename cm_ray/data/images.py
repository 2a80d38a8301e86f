"""Conversion of encoded images and PIL images to pixels, and of pixels to batches of one shape."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from cm_ray.data.image_formats import READABLE_FORMATS
from cm_ray.data.source import Batch, MixedChannelsError, Pixels, ReadOptions
from cm_ray.errors import UserError

BATCH_ROWS = 1024
_GREY = ("1", "L", "LA", "La")
_PLAIN = ("L", "RGB")
_T = TypeVar("_T")


class BadImageError(Exception):
    """Raised for an image that cannot be read; the message gives the reason."""


def decode(data: bytes, options: ReadOptions) -> Pixels:
    """Decode an image file's bytes to uint8 (h, w, c).

    Grey images give c=1 (c=3 with `options.channels`), all others c=3. Palettes and CMYK are converted,
    16-bit grey keeps its upper byte, transparency is dropped, the orientation that a camera recorded is
    applied, and an animation gives its first frame. Raises BadImageError.
    """
    with _readable(), Image.open(io.BytesIO(data), formats=READABLE_FORMATS) as image:
        return picture_pixels(image, options)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turn the exceptions of Pillow, which on damaged bytes may be of any class, into a BadImageError."""
    try:
        yield
    except (BadImageError, MemoryError):
        raise
    except Exception as error:
        raise BadImageError(f"{error or type(error).__name__}".splitlines()[0]) from error


def picture_pixels(image: Image.Image, options: ReadOptions) -> Pixels:
    """Return a PIL image of any mode as uint8 (h, w, c), converted as `decode` says.

    Raises BadImageError when its file is damaged or its pixels have no 8-bit scale.
    """
    with _readable():
        image.load()
        upright = ImageOps.exif_transpose(image) if image.format in ("JPEG", "WEBP", "MPO") else image
        return fitted(eight_bit(upright), options)


def fitted(image: Image.Image, options: ReadOptions) -> Pixels:
    """Return an L or RGB image as uint8 (h, w, c), cropped, resized and widened as the options say."""
    if options.channels == 3 and image.mode == "L":
        image = image.convert("RGB")
    if options.size and image.size != (options.size, options.size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        # Pillow widens the filter when it shrinks an image, which avoids aliasing. The crop comes first,
        # since the filter would otherwise reach over the edge of the square.
        square = image.crop((left, top, left + side, top + side))
        image = square.resize((options.size, options.size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def fitted_pixels(pixels: Pixels, options: ReadOptions) -> Pixels:
    """Return uint8 pixels (h, w, c), cropped, resized and widened as the options say."""
    if not (options.size or options.channels):
        return pixels
    return fitted(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), options)


def eight_bit(image: Image.Image) -> Image.Image:
    """Return an image of any mode as one of mode L or RGB. Raises BadImageError for modes without a scale."""
    if image.mode in _PLAIN:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImageError(f"pixels of mode {image.mode} have no 8-bit scale")
    if image.mode == "P":  # through RGBA, as a palette may hold transparency
        return image.convert("RGBA").convert("RGB")
    return image.convert("L" if image.mode in _GREY else "RGB")


def batches(
    items: Iterable[tuple[str, _T, int]],
    options: ReadOptions,
    decode: Callable[[_T, ReadOptions], Pixels],
) -> Iterator[Batch]:
    """Decode (name, encoded image, label) items into batches of one shape.

    decode: turns an encoded image into uint8 (h, w, c), or raises BadImageError. See `Part.read` for the
    other errors.
    """
    images: list[Pixels] = []
    labels: list[int] = []
    first, origin, shape, skipped = "", "", None, 0
    for name, data, label in items:
        try:
            pixels = decode(data, options)
        except BadImageError as error:
            if options.on_bad_image == "raise":
                raise UserError(
                    f"{name} is not a readable image ({error}); repair or remove it, or set on_bad_image "
                    "to skip."
                ) from error
            skipped += 1
            continue
        if shape is None:
            shape, origin = pixels.shape, name
        elif pixels.shape != shape:
            check_same_shape(origin, shape, name, pixels.shape)
        first = first or name
        images.append(pixels)
        labels.append(label)
        if len(images) == BATCH_ROWS:
            yield _batch(images, labels, skipped, first)
            images, labels, skipped, first = [], [], 0, ""
    if images or skipped:
        yield _batch(images, labels, skipped, first)


def pixel_batches(pixels: Pixels, labels: Iterable[int], name: str, options: ReadOptions) -> Iterator[Batch]:
    """Yield decoded images (n, h, w, c) in batches, cropped and resized as the options say."""
    table = np.asarray(labels, dtype=np.int64)
    for start in range(0, len(pixels), BATCH_ROWS):
        chunk = pixels[start : start + BATCH_ROWS]
        if options.size or options.channels:
            chunk = np.stack([fitted_pixels(one, options) for one in chunk])
        yield Batch(images=chunk, labels=table[start : start + BATCH_ROWS], first=name)


def check_same_shape(name: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> None:
    """Compare two images' shapes (h, w, c).

    Raises UserError when the sizes differ, MixedChannelsError when only the channels do.
    """
    if shape[:2] != other_shape[:2]:
        raise UserError(
            f"The images have different sizes: {name} is {shape[1]}x{shape[0]} and {other} is "
            f"{other_shape[1]}x{other_shape[0]}; set size to crop and resize them all."
        )
    if shape != other_shape:
        raise MixedChannelsError(f"{name} has {shape[2]} channels, {other} has {other_shape[2]}")


def _batch(images: list[Pixels], labels: list[int], skipped: int, first: str) -> Batch:
    stacked = np.stack(images) if images else np.empty((0, 0, 0, 0), np.uint8)
    return Batch(images=stacked, labels=np.array(labels, dtype=np.int64), skipped=skipped, first=first)
