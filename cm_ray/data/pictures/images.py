"""Conversion of encoded images and PIL images to pixels, and of pixels to batches of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from cm_ray.data.interface.agreement import agreed_bits, check_same_shape
from cm_ray.data.interface.bad_image import BadImageError
from cm_ray.data.interface.source import Batch, Pixels, ReadOptions
from cm_ray.data.pictures.fitting import cut_and_resized, image_of, pixels_of, with_channels
from cm_ray.data.pictures.flattening import flattened
from cm_ray.data.pictures.image_formats import READABLE_FORMATS
from cm_ray.data.pictures.pillow_files import decoding, open_file
from cm_ray.errors import UserError, setting

BATCH_ROWS = 1024
_GREATEST = (1 << 63) - 1  # label; greater ones are refused as it is
_T = TypeVar("_T")


class Decoded(NamedTuple):
    """The pixels of an image, and what was met on the way to them."""

    pixels: Pixels
    """uint8 (h, w, c), c is 1 or 3."""
    bits: int = 0
    """The bits that samples of more than 8 bits were scaled by; 0 for other images."""
    transparent: bool = False
    """True if the background is seen through some pixel."""
    profile_ignored: bool = False
    """True if the image has a colour profile that is damaged or does not fit."""


def decode(data: bytes, options: ReadOptions) -> Decoded:
    """Decode an image file's bytes to uint8 (h, w, c).

    Grey images give c=1, all others c=3, unless `options.channels` says otherwise. The first frame is taken,
    upright, in sRGB, with 8 bits and on the background of the options, see `flattened`; then it is cropped
    and resized. Raises BadImageError, also for an image of more than `options.most_pixels`.
    """
    with decoding(), open_file(data, READABLE_FORMATS, options.most_pixels, options.size) as image:
        return _decoded(image, options)


def picture_pixels(image: Image.Image, options: ReadOptions) -> Decoded:
    """Return a PIL image of any mode as uint8 (h, w, c), converted as by `decode`.

    Raises BadImageError when its file is damaged or its samples have no 8-bit scale.
    """
    with decoding():
        return _decoded(image, options)


def _decoded(image: Image.Image, options: ReadOptions) -> Decoded:
    flat = flattened(image, options)
    return Decoded(pixels_of(_fitted(flat.image, options)), *flat[1:])


def _fitted(image: Image.Image, options: ReadOptions) -> Image.Image:
    image = with_channels(image, options.channels)
    square = (options.size, options.size)
    if not options.size or image.size == square:
        return image
    return cut_and_resized(image, square, Image.Resampling.LANCZOS)


def fitted_pixels(pixels: Pixels, options: ReadOptions) -> Pixels:
    """Return uint8 pixels (h, w, c), cropped, resized, and with the channels that the options say."""
    if not (options.size or options.channels):
        return pixels
    return pixels_of(_fitted(image_of(pixels), options))


class _Collected:
    """Decoded images of a part until they are a batch."""

    def __init__(self) -> None:
        self.images: list[Decoded] = []
        self.labels: list[int] = []
        self.skipped, self.first = 0, ""

    def add(self, image: Decoded, label: int, name: str) -> None:
        """Append an image; the first one's name is that of the batch."""
        self.first = self.first or name
        self.images.append(image)
        self.labels.append(label)

    def batch(self) -> Batch:
        """Return the images as a batch."""
        pixels = [image.pixels for image in self.images]
        return Batch(
            images=np.stack(pixels) if pixels else np.empty((0, 0, 0, 0), np.uint8),
            labels=np.array([max(-_GREATEST, min(label, _GREATEST)) for label in self.labels], np.int64),
            skipped=self.skipped,
            first=self.first,
            bits=max((image.bits for image in self.images), default=0),
            transparent=sum(image.transparent for image in self.images),
            profiles_ignored=sum(image.profile_ignored for image in self.images),
        )


def batches(
    items: Iterable[tuple[str, _T, int]],
    options: ReadOptions,
    decode: Callable[[_T, ReadOptions], Decoded],
) -> Iterator[Batch]:
    """Decode (name, encoded image, label) items into batches of one shape.

    decode: turns an encoded image into pixels, or raises BadImageError. See `Part.read` for the other errors.
    """
    collected, known, origin = _Collected(), None, ""
    for name, data, label in items:
        try:
            image = decode(data, options)
        except BadImageError as error:
            if options.on_bad_image == "raise":
                skip = setting("on_bad_image", "data.on_bad_image")
                advice = f"{error.advice}, or set {skip} to skip."
                raise UserError(f"{name} {error.problem}; {advice}") from error
            collected.skipped += 1
            continue
        if known is None:
            known, origin = image, name
        check_same_shape(origin, known.pixels.shape, name, image.pixels.shape)
        known = known._replace(bits=agreed_bits(known.bits, image.bits))
        collected.add(image, label, name)
        if len(collected.images) == BATCH_ROWS:
            yield collected.batch()
            collected = _Collected()
    if collected.images or collected.skipped:
        yield collected.batch()


def pixel_batches(pixels: Pixels, labels: Iterable[int], name: str, options: ReadOptions) -> Iterator[Batch]:
    """Yield decoded images (n, h, w, c) in batches, cropped and resized as the options say."""
    table = np.asarray(labels, dtype=np.int64)
    for start in range(0, len(pixels), BATCH_ROWS):
        chunk = pixels[start : start + BATCH_ROWS]
        if options.size or options.channels:
            chunk = np.stack([fitted_pixels(one, options) for one in chunk])
        yield Batch(images=chunk, labels=table[start : start + BATCH_ROWS], first=name)
