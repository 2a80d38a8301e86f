"""Contents of .npz files: which arrays are images, labels and names of classes, and what their axes are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.interface.columns import ColumnChoice, Columns, Kind
from cm_ray.data.interface.names import printable
from cm_ray.data.interface.source import LeftOut, Pixels
from cm_ray.data.interface.splits import chosen_split, split_word
from cm_ray.data.pictures.pixel_arrays import channels_last
from cm_ray.data.tables.npz_arrays import NpzArray, check_array
from cm_ray.errors import UserError

Axes = Literal["nhwc", "nchw", "nhw", "planes"]
"""Meaning of the axes of images; planes: (n, 3*h*w), as in the files of downsampled ImageNet."""
_FIRST, _SECOND, _PLANES = "arr_0", "arr_1", "data"
_NAME_WORDS = ("class_names", "classes", "label_names", "target_names", "categories", "names")


@dataclass(frozen=True, slots=True)
class NpzContents:
    """The arrays of .npz files that are read."""

    images: str
    """Name of the array of images."""
    axes: Axes
    shape: tuple[int, int, int]
    """(h, w, c) of an image."""
    labels: str | None
    """Name of the array of labels."""
    names: str | None
    """Name of the array of names of classes."""
    split: str
    """The split whose arrays they are; "" where there are no splits."""
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, heads: Mapping[str, NpzArray], wanted: Columns, asked: str, where: str) -> NpzContents:
        """Choose among the arrays of a file.

        asked: the split that the user names. where: the file in messages. Raises UserError when there are no
        images, when arrays do not fit, and when the choice is not clear.
        """
        choice = ColumnChoice(where, "array")
        split = _split(heads, wanted, asked, where)
        mine = {name: head for name, head in heads.items() if not split or split_word(name) in ("", split)}
        images = _images(mine, wanted, split, choice)
        check_array(heads[images])
        count = len(heads[images])
        names = next((name for name, head in mine.items() if _are_names(name, head, count)), None)
        labels = _labels([name for name in mine if name not in (images, names)], wanted, split, choice)
        axes, shape = _meaning(heads[images], heads[labels] if labels else None)
        if labels:
            check_labels(heads[labels], count)
        if names:
            check_array(heads[names])
        used = {images, labels, names}
        left = _left_out([name for name in heads if name not in used], mine, split)
        return cls(images, axes, shape, labels, names, split, left)

    def check(self, heads: Mapping[str, NpzArray], where: str) -> NpzArray:
        """Return the images of another file. Raises UserError when its arrays are not like these."""
        for name in (self.images, self.labels):
            if name is not None and name not in heads:
                raise UserError(
                    f"{where} has no array {name!r}, which other files have; give them as two data sets."
                )
        images = heads[self.images]
        check_array(images)
        if _meaning(images, heads[self.labels] if self.labels else None) != (self.axes, self.shape):
            raise UserError(
                f"{images} has the shape {images.shape}, unlike that of other files; give them as two data "
                "sets."
            )
        if self.labels:
            check_labels(heads[self.labels], len(images))
        return images

    def pixels(self, rows: NDArray[np.uint8]) -> Pixels:
        """Return rows of the array of images as (n, h, w, c)."""
        h, w, c = self.shape
        if self.axes == "planes":
            rows = rows.reshape(-1, c, h, w)
        if self.axes in ("planes", "nchw"):
            return rows.transpose(0, 2, 3, 1)
        return rows.reshape(-1, h, w, c)


def _split(heads: Mapping[str, NpzArray], wanted: Columns, asked: str, where: str) -> str:
    """Return the split of the arrays to read, such as the train of x_train; "" if none is named so."""
    if wanted.image:
        return split_word(wanted.image)
    names = [name for name, head in heads.items() if _like_images(head)]
    words = {word for name in names if (word := split_word(name))}
    if not words or any(not split_word(name) for name in names):
        return ""
    return chosen_split(words, asked, where)


def _stem(name: str, split: str) -> str:
    """Return the name of an array without the word of its split: x for x_train, images for train_images."""
    lower = name.lower()
    if split and lower.startswith(split):
        return name[len(split) :].strip("_-. ")
    return name[: -len(split)].strip("_-. ") if split and lower.endswith(split) else name


def _images(heads: Mapping[str, NpzArray], wanted: Columns, split: str, choice: ColumnChoice) -> str:
    if wanted.image:
        return choice.known([*heads], wanted.image, "image")
    if _FIRST in heads:
        return _FIRST
    like = {name for name, head in heads.items() if _like_images(head)}
    if not like and _PLANES in heads and _side(heads[_PLANES]):
        return _PLANES
    other = [head for head in heads.values() if len(head.shape) == 4]
    if not like and other:
        raise UserError(
            f"{other[0]} is {other[0].dtype}, and images are read as uint8: save levels of 0 to 255."
        )
    stems = {_stem(name, split): name for name in heads}
    kinds: dict[str, Kind] = {stem: "images" if name in like else "other" for stem, name in stems.items()}
    return stems[choice.images(kinds)]


def _labels(names: Sequence[str], wanted: Columns, split: str, choice: ColumnChoice) -> str | None:
    if wanted.label:
        return choice.labels(names, wanted.label)
    if _SECOND in names:
        return _SECOND
    stems = {_stem(name, split): name for name in names}
    found = choice.labels([*stems])
    return stems[found] if found else None


def _like_images(head: NpzArray) -> bool:
    return head.dtype == np.uint8 and len(head.shape) in (3, 4)


def _are_names(name: str, head: NpzArray, count: int) -> bool:
    text = head.dtype.kind in "US" and len(head.shape) == 1
    return text and name.lower() in _NAME_WORDS and len(head) != count


def _side(head: NpzArray) -> int:
    """Return the width of images that are flat rows of three planes; 0 if they are not."""
    if head.dtype != np.uint8 or len(head.shape) != 2 or head.shape[1] % 3:
        return 0
    side = math.isqrt(head.shape[1] // 3)
    return side if 3 * side * side == head.shape[1] else 0


def _meaning(images: NpzArray, labels: NpzArray | None) -> tuple[Axes, tuple[int, int, int]]:
    """Return the axes of images and the shape (h, w, c) of one. Raises UserError when they are no images.

    Where there are only three axes, labels tell that the first one counts the images.
    """
    shape = images.shape
    if images.dtype != np.uint8:
        raise UserError(f"{images} is {images.dtype}, not uint8; save its pixels as uint8 in [0, 255].")
    if min(shape, default=0) < 1:
        raise UserError(f"{images} holds no images: its shape is {shape}; give another file.")
    if images.name == _PLANES and (side := _side(images)):
        return "planes", (side, side, 3)
    if images.name == _FIRST and shape[3:] in ((1,), (3,)):  # OpenAI's tools give it these axes
        return "nhwc", (shape[1], shape[2], shape[3])
    counted = len(shape) == 3 and labels is not None and len(labels) == len(images)
    asked = (2, *shape[1:]) if counted else shape
    h, w, c = channels_last(np.broadcast_to(np.uint8(0), asked), 4, str(images)).shape[1:]
    if len(shape) == 3:
        return "nhw", (h, w, c)
    return ("nhwc" if shape[1:] == (h, w, c) else "nchw"), (h, w, c)


def check_labels(labels: NpzArray, count: int) -> None:
    """Raise UserError when an array does not hold a number or a text for each of the images."""
    check_array(labels)
    if labels.dtype.kind not in "iubUS":
        raise UserError(f"{labels} is {labels.dtype}, neither integers nor texts; number the classes.")
    if labels.shape not in ((count,), (count, 1)):
        raise UserError(f"{labels} has the shape {labels.shape}, not a label for each of the {count} images.")


def _left_out(names: Sequence[str], mine: Mapping[str, Any], split: str) -> tuple[LeftOut, ...]:
    other = [printable(name) for name in names if name not in mine]
    rest = [printable(name) for name in names if name in mine]
    found = []
    if other:
        found.append(LeftOut(len(other), f"arrays ({', '.join(other)})", f"the split {split} is read"))
    if rest:
        found.append(LeftOut(len(rest), f"arrays ({', '.join(rest)})", "neither images nor labels"))
    return tuple(found)
