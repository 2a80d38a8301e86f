"""Images of any mode as upright images of mode L or RGB, as a person sees them on a ground of one colour."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from PIL import ExifTags, Image, ImageFile

from cm_ray.data.interface.bad_image import BadImageError
from cm_ray.data.interface.reading import Reading
from cm_ray.data.pictures.colour_profiles import in_srgb
from cm_ray.data.pictures.deep_samples import deep_samples, scaled
from cm_ray.data.pictures.image_formats import READABLE_FORMATS

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that brings an image upright, by its orientation in EXIF."""
_ON_THE_SIDE = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_REDUCED, _DNG_VERSION = 254, 50706
"""Tags of TIFF."""


class Flat(NamedTuple):
    """An image without transparency, orientation and profile."""

    image: Image.Image
    """The image, of mode L or RGB."""
    bits: int = 0
    """The bits that the samples of an image of more than 8 bits were scaled by; 0 for other images."""
    transparent: bool = False
    """True if the ground is seen through some pixel."""
    profile_ignored: bool = False
    """True if the image has a colour profile that is damaged or belongs to images of other channels."""


def flattened(image: Image.Image, reading: Reading) -> Flat:
    """Return an image of any mode as an upright one of mode L or RGB; call it within `decoding`.

    Samples of more than 8 bits are scaled by the bits that they use (see `deep_samples`), colours with an ICC
    profile become those of sRGB, and transparent pixels show the ground. The image is L if it is grey and its
    ground too. Of several frames, the one that the image stands at is taken. Raises whatever Pillow does on
    damaged data.
    """
    _check_kind(image)
    profile, key = image.info.get("icc_profile"), _key(image)
    deep = deep_samples(image)
    if deep is None:
        image.load()
        colours, alpha = _separated(image, key)
        bits = 0
    else:
        colours, alpha, bits = scaled(deep, reading.bits)
    colours, fits = in_srgb(colours, profile)
    transparent = alpha is not None and alpha.getextrema()[0] < 255  # type: ignore[operator]
    if alpha is not None and transparent:
        colours = _on_ground(colours, alpha, reading.ground)
    turn = _turn_of(image)
    return Flat(colours if turn is None else colours.transpose(turn), bits, transparent, not fits)


def _check_kind(image: Image.Image) -> None:
    """Raise BadImageError for files that Pillow would start a program for, and for previews of raw files."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return
    if image.format not in (*READABLE_FORMATS, "MPO"):
        raise BadImageError(f"files of the format {image.format} are not read")
    tags = getattr(image, "tag_v2", {})
    if _DNG_VERSION in tags or tags.get(_REDUCED, 0) & 1:
        raise BadImageError("the preview of a raw photograph")


def _key(image: Image.Image) -> object:
    """Return the colour that stands for transparency in an image without alpha, if there is one.

    Pillow gives a PNG's grey levels of 2 and 4 bits as 8 bits, and the transparent one as it is in the file.
    """
    key = image.info.get("transparency")
    if isinstance(key, int) and isinstance(image, ImageFile.ImageFile) and image.tile:
        factor = {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args), 1)
        return key * factor
    return key


def _separated(image: Image.Image, key: object) -> tuple[Image.Image, Image.Image | None]:
    """Return an image of 8 bits as its colours, of mode L, RGB or CMYK, and its alpha, if it has any."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif key is not None and image.mode in ("1", "L"):
        grey = image.convert("L")
        return grey, grey.point([0 if level == key else 255 for level in range(256)])
    elif key is not None and image.mode == "RGB":
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if image.mode in ("L", "RGB", "CMYK"):
        return image, alpha
    return image.convert("L" if image.mode in ("1", "LA") else "RGB"), alpha


def _on_ground(colours: Image.Image, alpha: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """Return colours over a ground, which is seen where alpha is small; grey over grey stays grey."""
    if colours.mode == "L" and len(set(ground)) == 1:
        return Image.composite(colours, Image.new("L", colours.size, ground[0]), alpha)
    return Image.composite(colours.convert("RGB"), Image.new("RGB", colours.size, ground), alpha)


def is_turned(image: Image.Image) -> bool:
    """Return True if width and height of an image are those of the upright one in the other order."""
    return _turn_of(image) in _ON_THE_SIDE


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that brings an image upright; None for an upright one and for damaged EXIF."""
    orientation = None
    with contextlib.suppress(Exception):  # on damaged bytes, Pillow raises exceptions of any class
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return _TURNS.get(orientation) if isinstance(orientation, int) else None
