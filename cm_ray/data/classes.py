"""Classes of a data set: their names, and the number of images of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from cm_ray.data.source import Labels
from cm_ray.errors import UserError

MOST_CLASSES = 100_000


def count_labels(labels: Labels) -> Counter[int]:
    """Return the number of images of each label that occurs in `labels` (n,); -1 stands for no label.

    Counters of several parts add up. They need little memory, however large a label is.
    """
    numbers, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))


def classes_of(
    source: str, names: tuple[str, ...], labels: Mapping[int, int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the name of each class and its number of images.

    source: name of the data in messages. names: the source's names of classes; without any, the classes are
    called by their numbers, 0 to the greatest label. labels: number of images of each label, of at least one
    image; see `count_labels`. Returns ((), ()) when no image has a label (all are -1). Raises UserError when
    only some images have a label, or a label has no name.
    """
    low, high = min(labels), max(labels)
    if low == high == -1:
        return (), ()
    if low < 0:
        raise UserError(
            f"{source} has images without a label (or with the label {low}) among others with one; "
            "label all of them."
        )
    if high >= MOST_CLASSES:
        raise UserError(
            f"{source} has the label {high}, and there may be at most {MOST_CLASSES:,} classes; "
            "number them 0, 1, 2 and so on."
        )
    known = names or tuple(str(number) for number in range(high + 1))
    if high >= len(known):
        raise UserError(
            f"{source} has the label {high} but names only {len(known)} classes; correct the labels or "
            "the names."
        )
    return known, tuple(labels.get(number, 0) for number in range(len(known)))
