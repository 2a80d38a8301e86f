"""Classes of a data set: their names, the number of images of each, and their numbers in other data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.interface.source import Labels
from cm_ray.errors import UserError

MOST_CLASSES = 100_000
_MOST_SHOWN = 10


def count_labels(labels: Labels) -> Counter[int]:
    """Return the number of images of each label that occurs in `labels` (n,); -1 stands for no label.

    Counters of several parts add up. They need little memory, however large a label is.
    """
    numbers, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))


def as_labels(numbers: NDArray[Any]) -> Labels:
    """Return integers as labels; ones beyond 64 bits become the greatest number, which no class has.

    Otherwise they would become negative, as images without a label are.
    """
    if numbers.dtype == np.uint64:
        numbers = np.minimum(numbers, np.uint64(np.iinfo(np.int64).max))
    return numbers.astype(np.int64)


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


@dataclass(frozen=True, slots=True)
class ClassMatch:
    """The classes of one list of names, `ours`, found in another one, `theirs`."""

    numbers: tuple[int, ...]
    """Number in `theirs` of each class of `ours`; -1 where no class, or more than one, is called so."""
    how: Literal["same", "name", "number"]
    """same: both lists are equal; name: classes of the same name are the same; number: one list has only
    numbers and the other one names, so that classes of the same number are the same."""


def match_classes(theirs: tuple[str, ...], ours: tuple[str, ...]) -> ClassMatch:
    """Find the classes of `ours` in `theirs`, by their names, or by numbers where one side has no names.

    A side has no names if its classes are called "0", "1", "2" and so on. It is matched by number only with
    as many classes that all have other names.
    """
    if theirs == ours:
        return ClassMatch(tuple(range(len(ours))), "same")
    nameless = [names == tuple(map(str, range(len(names)))) for names in (theirs, ours)]
    if len(theirs) == len(ours) and any(nameless) and not {*theirs} & {*ours}:
        return ClassMatch(tuple(range(len(ours))), "number")
    once = {name: number for number, name in enumerate(theirs) if theirs.count(name) == 1}
    return ClassMatch(tuple(once.get(name, -1) if ours.count(name) == 1 else -1 for name in ours), "name")


def classes_in_words(names: Sequence[str], counts: Sequence[int]) -> str:
    """Return the number of classes, and up to ten of them by name with their number of images, as a text."""
    if not names:
        return "without labels"
    shown = names_in_words([f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)])
    empty = names_in_words([name for name, count in zip(names, counts, strict=True) if not count])
    said = f"{len(names):,} {'class' if len(names) == 1 else 'classes'}: {shown}"
    return f"{said}, where no image is of {empty}" if empty else said


def names_in_words(names: Sequence[str]) -> str:
    """Return up to ten names as a text, with their number if there are more."""
    more = f" and {len(names) - _MOST_SHOWN:,} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
