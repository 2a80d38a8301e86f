"""Samples as people and as programs want them: a PNG grid, and an .npz of uint8 NHWC."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from cm_ray.storage.files import written_aside


def save_grid(images: Tensor, path: Path, *, columns: int = 0, least_pixels: int = 480) -> None:
    """Write uint8 images (b, c, h, w) as a PNG grid; see `grid_picture`."""
    with written_aside(path) as aside:
        grid_picture(images, columns=columns, least_pixels=least_pixels).save(aside, format="PNG")


def grid_picture(images: Tensor, *, columns: int = 0, least_pixels: int = 480) -> Image.Image:
    """Return uint8 images (b, c, h, w) as a grid with thin gaps, small images magnified.

    columns: 0 makes the grid square. least_pixels: images are magnified, by a whole factor and without
    smoothing, until the grid is about this wide.
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap = 1
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for index, image in enumerate(to_nhwc(images)):
        y, x = divmod(index, columns)
        top, left = y * (height + gap), x * (width + gap)
        canvas[top : top + height, left : left + width] = image
    factor = max(1, round(least_pixels / canvas.shape[1]))
    picture = Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def save_arrays(images: Tensor, path: Path, labels: Tensor | None = None) -> None:
    """Write uint8 images (b, c, h, w) as ``arr_0``, NHWC, and labels as ``arr_1``, as OpenAI's tools do."""
    arrays = [to_nhwc(images)] + ([] if labels is None else [labels.cpu().numpy()])
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, *arrays)


def save_samples(
    images: Tensor, stem: Path, *, labels: Tensor | None = None, most: int = 400, columns: int = 0
) -> list[Path]:
    """Write STEM.png, a grid of the first `most` images, and STEM.npz, all of them; return both paths."""
    grid, arrays = (stem.with_name(stem.name + ending) for ending in (".png", ".npz"))
    save_grid(images[:most], grid, columns=columns)
    save_arrays(images, arrays, labels)
    return [grid, arrays]


def to_nhwc(images: Tensor) -> np.ndarray:
    """Return images (b, c, h, w) as an array (b, h, w, c)."""
    array: np.ndarray = images.cpu().numpy().transpose(0, 2, 3, 1)
    return array
