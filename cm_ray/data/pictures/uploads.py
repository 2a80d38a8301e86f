"""Images that users upload: checked for format and size, and fitted to the shape that a model takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cm_ray.data.interface.bad_image import BadImageError, TooManyPixelsError
from cm_ray.data.interface.reading import Reading
from cm_ray.data.interface.source import Pixels
from cm_ray.data.pictures.fitting import cut_and_resized, pixels_of, with_channels
from cm_ray.data.pictures.flattening import Flat, flattened
from cm_ray.data.pictures.image_formats import READABLE_FORMATS
from cm_ray.data.pictures.pillow_files import decoding, open_file
from cm_ray.errors import UserError

MOST_BYTES = 32 << 20
MOST_PIXELS = 64_000_000
"""Limit of pixels, since a small file can hold a picture that fills the memory."""
KEPT = 128
"""Lowest level at which a pixel of a mask counts as white."""
_BEHIND_MASKS = Reading(background="black")


def open_upload(data: bytes, name: str, reading: Reading) -> Image.Image:
    """Decode an image file's bytes to an upright picture of mode L or RGB, as data sets are read.

    name: name of the image in messages. reading: that of the model's training. Raises UserError when it is
    of no format that data sets are read in, is broken, or is larger than 32 MiB or 64 million pixels.
    """
    return _flat(data, name, reading).image


def open_picture(image: Image.Image, name: str, reading: Reading) -> Image.Image:
    """Return a PIL image of any mode as `open_upload` returns that of a file.

    Raises UserError when its file is broken, or its samples have no 8-bit scale.
    """
    try:
        with decoding():
            return flattened(image, reading).image
    except BadImageError as error:
        raise UserError(f"{name} {error.problem}: give another image.") from error


def open_mask(data: bytes, name: str) -> Image.Image:
    """Decode an image file's bytes to a mask of mode L, black where it is transparent.

    Raises UserError as `open_upload`, and when no pixel is white although they are not all black, as in a
    mask of zeros and ones.
    """
    flat = _flat(data, name, _BEHIND_MASKS)
    mask = flat.image.convert("L")
    lowest, greatest = (int(level) for level in mask.getextrema())  # type: ignore[arg-type]
    if greatest < KEPT and (greatest or flat.transparent):
        raise UserError(
            f"{name} keeps nothing: white is kept, levels from {KEPT} on, and here they go from {lowest} to "
            f"{greatest}, transparent pixels counted as black. Make it white where the image is kept."
        )
    return mask


def _flat(data: bytes, name: str, reading: Reading) -> Flat:
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} has more than {MOST_BYTES >> 20} MiB: make it smaller.")
    try:
        with decoding(), open_file(data, READABLE_FORMATS, MOST_PIXELS) as image:
            return flattened(image, reading)
    except TooManyPixelsError as error:
        raise UserError(f"{name} has more than {MOST_PIXELS:,} pixels: make it smaller.") from error
    except BadImageError as error:
        raise UserError(f"{name} {error.problem}: give a whole image, such as a PNG or JPEG.") from error


def read_file(path: Path) -> bytes:
    """Return a file's bytes, at most one more than an upload may have.

    Raises UserError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"Could not read {path} ({error.strerror}); give the path of an image.") from error


def fitted_pixels(
    image: Image.Image, name: str, shape: tuple[int, int, int], *, resize: bool = False, factor: int = 1
) -> Pixels:
    """Return the pixels of a picture in the shape that a model takes, uint8 (h, w, c).

    shape: (c, h, w) of the model's images; colours become grey for c=1, and grey becomes RGB for c=3.
    resize: crop the centre to the shape's proportions and resize it. factor: a picture that is smaller by
    this factor is enlarged, each pixel to a patch. Raises UserError when the size is another one.
    """
    c, h, w = shape
    picture = with_channels(image, c)
    if factor > 1 and picture.size == (w // factor, h // factor):
        picture = picture.resize((w, h), Image.Resampling.NEAREST)
    elif picture.size != (w, h) and resize:
        picture = cut_and_resized(picture, (w, h), Image.Resampling.LANCZOS)
    elif picture.size != (w, h):
        small = f" or {w // factor}x{h // factor}" if factor > 1 else ""
        raise UserError(
            f"{name} is {picture.width}x{picture.height}, and the model's images are {w}x{h}{small}: "
            "set resize to crop and resize it."
        )
    return pixels_of(picture)


def fitted_mask(
    mask: Image.Image, name: str, image: Image.Image, shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Return a mask (h, w), true where it is white, cropped and resized like the image that it belongs to.

    Raises UserError when the mask has another size than the picture.
    """
    if mask.size != image.size:
        raise UserError(
            f"{name} is {mask.width}x{mask.height} and its image {image.width}x{image.height}: "
            "give a mask of the image's size."
        )
    grey = mask.convert("L").point(lambda level: 255 if level >= KEPT else 0)
    _, h, w = shape
    return np.asarray(cut_and_resized(grey, (w, h), Image.Resampling.NEAREST)) >= KEPT
