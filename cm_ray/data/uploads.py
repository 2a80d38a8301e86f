"""Images that users upload: checked for format and size, and fitted to the shape that a model takes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cm_ray.data.images import eight_bit
from cm_ray.data.source import Pixels
from cm_ray.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MOST_BYTES = 32 << 20
MOST_PIXELS = 64_000_000
"""Limit of pixels, since a small file can hold a picture that fills the memory."""
KEPT = 128
"""Lowest level at which a pixel of a mask counts as white."""


def open_upload(data: bytes, name: str) -> Image.Image:
    """Decode an image file's bytes to an upright picture of mode L or RGB, over a white background.

    name: name of the image in messages. Raises UserError when it is not a PNG, JPEG, WebP or BMP image, is
    broken, or is larger than 32 MiB or 64 million pixels.
    """
    return _flat(_decoded(data, name), "white")


def open_mask(data: bytes, name: str) -> Image.Image:
    """Decode an image file's bytes to a mask of mode L, black where it is transparent.

    Raises UserError as `open_upload`, and when no pixel is white although they are not all black, as in a
    mask of zeros and ones.
    """
    decoded = _decoded(data, name)
    mask = _flat(decoded, "black").convert("L")
    levels = np.asarray(mask)
    lowest, greatest = int(levels.min()), int(levels.max())
    if greatest < KEPT and (greatest or decoded.has_transparency_data):
        raise UserError(
            f"{name} keeps nothing: white is kept, levels from {KEPT} on, and here they go from {lowest} to "
            f"{greatest}, transparent pixels counted as black. Make it white where the image is kept."
        )
    return mask


def _decoded(data: bytes, name: str) -> Image.Image:
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} has more than {MOST_BYTES >> 20} MiB: make it smaller.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return _convertible(ImageOps.exif_transpose(image))
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:  # also raised by Pillow, for even more pixels
        raise UserError(f"{name} has more than {MOST_PIXELS:,} pixels: make it smaller.") from error
    except Exception as error:  # on damaged bytes, Pillow raises exceptions of any class
        reason = "broken" if not isinstance(error, UnidentifiedImageError) else "of another kind"
        raise UserError(
            f"{name} is not a readable image ({reason}): give a whole PNG, JPEG, WebP or BMP file."
        ) from error


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
    picture = image.convert("L" if c == 1 else "RGB")
    if factor > 1 and picture.size == (w // factor, h // factor):
        picture = picture.resize((w, h), Image.Resampling.NEAREST)
    elif picture.size != (w, h) and resize:
        picture = _fit(picture, (w, h), Image.Resampling.LANCZOS)
    elif picture.size != (w, h):
        small = f", or {w // factor}x{h // factor}," if factor > 1 else ""
        raise UserError(
            f"{name} is {picture.width}x{picture.height}, and the model's images are {w}x{h}{small}: "
            "set resize to crop and resize it."
        )
    return np.asarray(picture).reshape(h, w, c)


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
    return np.asarray(_fit(grey, (w, h), Image.Resampling.NEAREST)) >= KEPT


def _convertible(image: Image.Image) -> Image.Image:
    """Return an image with eight bits per channel, of mode RGBA if it has transparent pixels."""
    if image.has_transparency_data and not image.mode.startswith("I;16"):
        return image.convert("RGBA")
    return eight_bit(image)


def _flat(image: Image.Image, ground: str) -> Image.Image:
    """Return an image of mode RGBA over a background of one colour, and any other image as it is."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")


def _fit(picture: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Crop the centre to the proportions of `size` and resize it.

    The crop comes first, since the filter would otherwise reach over the edge of what is left.
    """
    scale = min(picture.width / size[0], picture.height / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height)).resize(size, how)
