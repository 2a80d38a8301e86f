"""Images fitted to the size and the channels that are wanted; the same for data sets and for uploads."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cm_ray.data.interface.source import Pixels


def cut_and_resized(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    """Crop the centre to the proportions of `size` (width, height) and resize it.

    The crop comes first, since the filter would otherwise reach over the edge of what is left. Pillow widens
    the filter when it shrinks an image, which avoids aliasing.
    """
    scale = min(image.width / size[0], image.height / size[1])
    width, height = (max(1, round(side * scale)) for side in size)
    if (width, height) != image.size:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        middle = Image.new(image.mode, (width, height))  # crop() keeps to the process's limit of pixels
        middle.paste(image, (-left, -top))
        image = middle
    return image.resize(size, how)


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Return an image of mode L or RGB with 1 or 3 channels; 0 leaves it as it is.

    Colours become grey by their luma, 0.299 R + 0.587 G + 0.114 B (ITU-R 601).
    """
    return image.convert({1: "L", 3: "RGB"}[channels]) if channels else image


def pixels_of(image: Image.Image) -> Pixels:
    """Return an image of mode L or RGB as uint8 (h, w, c)."""
    pixels: Pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def image_of(pixels: Pixels) -> Image.Image:
    """Return uint8 pixels (h, w, c), c 1 or 3, as an image of mode L or RGB."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
