"""Samples as people and as programs want them: a PNG grid, and an .npz of uint8 NHWC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.sampling.labels import label_name
from cm_ray.storage.files import remove, written_aside


def save_grid(
    images: Tensor, path: Path, *, columns: int = 0, least_pixels: int = 480, classes: Sequence[str] = ()
) -> None:
    """Write uint8 images (b, c, h, w) as a PNG grid; see `grid_picture`.

    classes: name of each image's class (b); beside NAME.png, they are written row by row to NAME.classes.txt.
    """
    with written_aside(path) as aside:
        grid_picture(images, columns=columns, least_pixels=least_pixels).save(aside, format="PNG")
    legend = path.with_name(path.stem + ".classes.txt")
    if not classes:
        remove(legend)  # of an earlier grid of this name
        return
    width = _columns(len(images), columns)
    rows = [", ".join(classes[first : first + width]) for first in range(0, len(classes), width)]
    with written_aside(legend) as aside:
        aside.write_text("".join(f"row {number}: {row}\n" for number, row in enumerate(rows, 1)))


def grid_picture(
    images: Tensor, *, columns: int = 0, least_pixels: int = 480, smooth: bool = False
) -> Image.Image:
    """Return uint8 images (b, c, h, w) as a grid with thin gaps, small images magnified.

    columns: 0 makes the grid square. least_pixels: images are magnified, by a whole factor, until the grid is
    about this wide. smooth: each by itself with Lanczos' filter, instead of each pixel to a square.
    """
    count, channels, height, width = images.shape
    columns = _columns(count, columns)
    rows = math.ceil(count / columns)
    gap = 1
    size = columns * (width + gap) - gap, rows * (height + gap) - gap
    factor = max(1, round(least_pixels / size[0]))
    grid = Image.new("L" if channels == 1 else "RGB", (size[0] * factor, size[1] * factor), "white")
    method = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    for index, image in enumerate(to_nhwc(images)):
        y, x = divmod(index, columns)
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        large = picture.resize((width * factor, height * factor), method)
        grid.paste(large, (x * (width + gap) * factor, y * (height + gap) * factor))
    return grid


def _columns(count: int, columns: int) -> int:
    """Return the number of columns of a grid of `count` images; by default it is square."""
    return columns or math.ceil(math.sqrt(count))


def save_arrays(
    images: Tensor, path: Path, labels: Tensor | None = None, class_names: tuple[str, ...] = ()
) -> None:
    """Write images, and labels if any, to an .npz; see `write_arrays`."""
    with written_aside(path) as aside, aside.open("wb") as file:
        write_arrays(file, images, labels, class_names)


def write_arrays(
    file: BinaryIO, images: Tensor, labels: Tensor | None = None, class_names: tuple[str, ...] = ()
) -> None:
    """Write uint8 images (b, c, h, w) as ``arr_0``, NHWC, and labels as ``arr_1``, as OpenAI's tools do.

    The names of all classes go with labels, as the array ``class_names`` of texts.
    """
    arrays = [to_nhwc(images)] + ([] if labels is None else [labels.cpu().numpy()])
    named = {} if labels is None or not class_names else {"class_names": np.array(class_names, np.str_)}
    np.savez(file, *arrays, **named)  # type: ignore[arg-type]


def save_samples(
    images: Tensor,
    stem: Path,
    *,
    labels: Tensor | None = None,
    class_names: tuple[str, ...] = (),
    most: int = 400,
    columns: int = 0,
) -> list[Path]:
    """Write STEM.png, a grid of the first `most` images, and STEM.npz, all of them; return both paths.

    labels, class_names: of all images, for the legend of the grid and for the arrays.
    """
    grid, arrays = (stem.with_name(stem.name + ending) for ending in (".png", ".npz"))
    classes = [] if labels is None else [label_name(class_names, each) for each in labels[:most].tolist()]
    save_grid(images[:most], grid, columns=columns, classes=classes)
    save_arrays(images, arrays, labels, class_names)
    return [grid, arrays]


def to_nhwc(images: Tensor) -> np.ndarray:
    """Return images (b, c, h, w) as an array (b, h, w, c)."""
    array: np.ndarray = images.cpu().numpy().transpose(0, 2, 3, 1)
    return array


def open_grid(path: Path) -> Image.Image:
    """Open a grid that a run has left. Raises UserError when it is missing or no PNG file."""
    try:
        return Image.open(path, formats=["PNG"])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a grid of samples ({error}); restore it.") from error
