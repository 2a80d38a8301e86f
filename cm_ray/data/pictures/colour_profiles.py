"""Colours of an image file with an ICC profile as colours of sRGB, by LittleCMS.

The intent is relative colorimetric with black point compensation: colours that sRGB has are kept, and black
stays black. Perceptual tables, which every maker of profiles fills in another way, are not used.
"""

from __future__ import annotations

import functools
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
"""Colour spaces of profiles, and the mode of the images that they describe."""
_EXACT = {
    "L": ImageCms.Flags.NOOPTIMIZE,
    "RGB": ImageCms.Flags.HIGHRESPRECALC,
    "CMYK": ImageCms.Flags.HIGHRESPRECALC,
}
"""The way to exact levels: a table of few grey ones is wrong by up to ten."""
_LEVELS = tuple(range(0, 256, 15))


class _Conversion(NamedTuple):
    """The way from a profile to sRGB."""

    mode: str
    """Mode of the images that the profile describes; empty for a profile that is damaged or of no such."""
    transform: ImageCms.ImageCmsTransform | None
    """None where the profile is that of sRGB."""


def in_srgb(colours: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """Return an image of mode L, RGB or CMYK as one of mode L or RGB in sRGB; grey stays grey.

    profile: the ICC profile of its file. The second value is False for a profile that is damaged, or belongs
    to images of other channels: it is ignored, as web browsers do, and the image is taken for sRGB. Without a
    profile, CMYK becomes RGB by subtraction.
    """
    plain = colours.convert("RGB") if colours.mode == "CMYK" else colours
    if not profile:
        return plain, True
    mode, transform = _conversion(profile)
    if mode != colours.mode and (colours.mode, mode) != ("L", "RGB"):  # grey may have a profile of colours
        return plain, False
    if transform is None:
        return plain, True
    if colours.mode == "L":
        return colours.point(list(transform.apply(_ramp(mode)).convert("L").tobytes())), True
    return transform.apply(colours), True


def _ramp(mode: str) -> Image.Image:
    """Return all levels of grey as an image of a mode."""
    return Image.frombytes("L", (256, 1), bytes(range(256))).convert(mode)


@functools.lru_cache(maxsize=32)
def _conversion(profile: bytes) -> _Conversion:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES[source.profile.xcolor_space.strip()]
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | _EXACT[mode],
        )
    except (ImageCms.PyCMSError, OSError, KeyError, TypeError, ValueError):
        return _Conversion("", None)
    return _Conversion(mode, None if _changes_nothing(transform, mode) else transform)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return True if a transform leaves a grid of colours as they are, to the rounding of a level.

    Many files carry the profile of sRGB, in many versions: their pixels stay what they are.
    """
    if mode == "CMYK":
        return False
    axes = np.meshgrid(*[np.array(_LEVELS, np.uint8)] * 3, indexing="ij")
    grid = np.stack(axes, -1).reshape(len(_LEVELS), -1, 3)
    probe = Image.fromarray(grid[..., 0] if mode == "L" else grid)
    before, after = (np.asarray(image.convert("RGB"), np.int16) for image in (probe, transform.apply(probe)))
    return int(np.abs(before - after).max()) <= 1
