"""Images of more than 8 bits a sample, scaled to 8 bits by the bits that they use.

Cameras and scanners keep 10, 12 or 14 bits in 16, with nothing that says so; read as 16 bits, such images are
nearly black. An image uses 8, 10, 12, 14 or 16 bits: as many as its greatest sample needs.
"""

from __future__ import annotations

import io
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from cm_ray.data.interface.bad_image import BadImageError
from cm_ray.data.pictures.pillow_files import with_memory

_STEPS = (8, 10, 12, 14, 16)
_FULL = 16
_WHITE = (1 << _FULL) - 1
_BITS_PER_SAMPLE, _PHOTOMETRIC, _GREATEST, _PLANAR = 258, 262, 281, 284
"""Tags of TIFF."""
_COLOURS = re.compile(r"RGB[AXa]?;16[BLN]")
_Deep = NDArray[np.uint16]


class Samples(NamedTuple):
    """The samples of an image before they are scaled."""

    colours: _Deep
    """(h, w, c), c is 1 or 3."""
    alpha: _Deep | None = None
    """(h, w); None without transparency."""
    said: int = 0
    """The bits that the file says it uses; 0 when it does not."""
    multiplied: bool = False
    """True if the colours were multiplied by alpha."""
    negative: bool = False
    """True if 0 is white."""


class Scaled(NamedTuple):
    """The samples of an image as images of mode L or RGB, and of mode L."""

    colours: Image.Image
    alpha: Image.Image | None
    bits: int
    """The bits that they were scaled by."""


def deep_samples(image: Image.Image) -> Samples | None:
    """Return the samples of an image of more than 8 bits; None for any other image.

    Pillow decodes 16-bit colours to their upper bytes: the samples of a file that is not decoded yet are read
    in full. Raises BadImageError for samples that have no white, and for those that Pillow misreads.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey(image)
    if image.mode == "F":
        raise BadImageError("its samples are floating-point numbers, which have no white")
    coded = _coding(image)
    if coded is None or not isinstance(image, ImageFile.ImageFile):
        return None
    if image.format == "PPM" and (coded.layout, coded.more) == ("RGB", (_WHITE,)):
        return _netpbm(image)
    if image.format == "SGI" and (coded.codec == "SGI16" or coded.more[1:] == (2,)):
        raise BadImageError("an SGI file of 16-bit samples")
    if coded.layout == "LA;16B":
        return _grey_and_alpha(image)
    if _planes_of_16_bits(image):
        raise BadImageError("its 16-bit channels lie in separate planes")
    return _colours(image, coded.layout) if _COLOURS.fullmatch(coded.layout) else None


def scaled(samples: Samples, least_bits: int) -> Scaled:
    """Scale samples to 8 bits by the bits that they use, but at least by `least_bits`."""
    greatest = int(samples.colours.max())
    if samples.multiplied and samples.alpha is not None:
        greatest = int(samples.alpha.max())
    bits = max(least_bits, samples.said, _used(greatest))
    colours, alpha = _eight(samples.colours, bits), None
    if samples.negative:
        colours = 255 - colours
    if samples.alpha is not None:
        white = bits if int(samples.alpha.max()) < 1 << bits else _FULL
        alpha = _eight(samples.alpha, white)
        if samples.multiplied:
            colours = _divided(samples.colours, samples.alpha)
    picture = Image.fromarray(colours[..., 0] if colours.shape[-1] == 1 else colours)
    return Scaled(picture, None if alpha is None else Image.fromarray(alpha), bits)


def _used(greatest: int) -> int:
    return next(bits for bits in _STEPS if greatest < 1 << bits)


def _eight(samples: _Deep, bits: int) -> NDArray[np.uint8]:
    table = np.rint(np.arange(1 << _FULL) * (255 / ((1 << bits) - 1))).clip(0, 255).astype(np.uint8)
    return table[samples]


def _divided(colours: _Deep, alpha: _Deep) -> NDArray[np.uint8]:
    """Return colours that were multiplied by alpha as they were before, as 8 bits."""
    share = colours / np.maximum(alpha, 1)[..., None]
    return np.rint(share * 255).clip(0, 255).astype(np.uint8)


def _grey(image: Image.Image) -> Samples:
    """Return the samples of an image of mode I or I;16."""
    coded = _coding(image)
    in_full = False  # Pillow scales the samples of a PGM, where white is less, to 16 bits
    if coded is not None and image.format == "PPM":
        in_full = coded.codec != "raw" and coded.more != (_WHITE,)
    tags = getattr(image, "tag_v2", {})
    key = image.info.get("transparency")
    values = np.asarray(image)
    if values.size and not (int(values.min()) >= 0 and int(values.max()) < 1 << _FULL):
        raise BadImageError(f"its samples go from {values.min()} to {values.max()}, which has no white")
    grey = values.astype(np.uint16)
    alpha = np.where(grey == key, 0, _WHITE).astype(np.uint16) if isinstance(key, int) else None
    said = _FULL if in_full else _said(tags)
    return Samples(grey[..., None], alpha, said, negative=tags.get(_PHOTOMETRIC) == 0)


def _said(tags: Any) -> int:
    """Return the bits that the tags of a TIFF say its samples use; 0 where they say 16 or nothing."""
    bits = tags.get(_BITS_PER_SAMPLE, ())
    greatest = tags.get(_GREATEST, 0)
    greatest = greatest[0] if isinstance(greatest, tuple) else greatest
    said = bits[0] if len(set(bits)) == 1 and 8 < bits[0] < _FULL else 0
    if isinstance(greatest, int) and 0 < greatest < _WHITE:
        said = max(said, _used(greatest))
    return int(said)


def _planes_of_16_bits(image: ImageFile.ImageFile) -> bool:
    tags = getattr(image, "tag_v2", {})
    deep = 16 in tags.get(_BITS_PER_SAMPLE, ())
    return deep and tags.get(_PLANAR) == 2 and len(image.getbands()) > 1


def _colours(image: ImageFile.ImageFile, layout: str) -> Samples:
    """Return the samples of 16-bit colours, with alpha if there is any.

    Pillow keeps the upper byte of every sample. Read in the other byte order, the lower bytes are the upper
    ones.
    """
    multiplied = layout.startswith("RGBa")
    layout = layout.replace("RGBa", "RGBA")
    again = with_memory(type(image)(io.BytesIO(_bytes_of(image))))
    again.seek(image.tell())
    tags, key = getattr(image, "tag_v2", {}), image.info.get("transparency")
    said = _said(tags)
    high = _as(image, layout)
    low = _as(again, layout[:-1] + ("B" if layout[-1] in "LN" else "L"))
    both = _joined(high, low)
    alpha = both[..., 3] if both.shape[-1] == 4 else None
    if alpha is None and isinstance(key, tuple):
        alpha = np.where((both == key).all(-1), 0, _WHITE).astype(np.uint16)
    return Samples(both[..., :3], alpha, said, multiplied)


def _grey_and_alpha(image: ImageFile.ImageFile) -> Samples:
    """Return the samples of a PNG of grey and alpha: read as four bytes, upper before lower."""
    bytes_ = _as(image, "RGBA")
    return Samples(_joined(bytes_[..., :1], bytes_[..., 1:2]), _joined(bytes_[..., 2], bytes_[..., 3]))


def _joined(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> _Deep:
    """Return samples of 16 bits by their upper and their lower bytes."""
    both: _Deep = np.left_shift(high, 8, dtype=np.uint16)
    both |= low
    return both


def _netpbm(image: ImageFile.ImageFile) -> Samples:
    """Return the samples of a PPM of two bytes a sample, or of numbers as text."""
    width, height = image.size
    count = width * height * 3
    data = _bytes_of(image)[image.tile[0].offset :]
    if image.tile[0].codec_name == "ppm_plain":
        values = np.array(data.split()[:count], np.uint16)
    else:
        values = np.frombuffer(data[: count * 2], ">u2").astype(np.uint16)
    if len(values) < count:
        raise BadImageError("image file is truncated")
    return Samples(values.reshape(height, width, 3))


class _Coding(NamedTuple):
    """The way in which the samples of a file lie there."""

    codec: str
    """Pillow's name of the decoder."""
    layout: str
    """Pillow's name of the layout of the samples."""
    more: tuple[Any, ...]
    """Other arguments of the decoder."""


def _coding(image: Image.Image) -> _Coding | None:
    """Return how the samples of an image lie in its file; None when they are decoded already."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.fp is None:
        return None
    args = image.tile[0].args
    first, *more = args if isinstance(args, tuple) and args else (args,)
    return _Coding(image.tile[0].codec_name, first if isinstance(first, str) else "", tuple(more))


def _as(image: ImageFile.ImageFile, layout: str) -> NDArray[np.uint8]:
    """Decode an image whose samples are taken to have another layout."""
    image.tile = [
        tile._replace(args=layout if isinstance(tile.args, str) else (layout, *(tile.args or ())[1:]))
        for tile in image.tile
    ]
    return np.asarray(image)


def _bytes_of(image: ImageFile.ImageFile) -> bytes:
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    return data
