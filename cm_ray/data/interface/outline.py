"""An outline of a source: the labels of its images, and the headers of some; see `heads`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

_RUNS, _ROWS = 16, 16


class Head(NamedTuple):
    """The header of an image."""

    width: int
    height: int
    grey: bool
    """False for colours."""
    alpha: bool = False
    """True if some pixels may be transparent."""

    @property
    def size(self) -> str:
        """Width x height."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Outline:
    """The labels of all images of a source, and the headers of some that are spread over it."""

    labels: Counter[int]
    """Number of images of each label, -1 for those without one."""
    heads: tuple[Head, ...]
    damaged: tuple[str, ...] = ()
    """The images among those looked at that cannot be read, and why."""

    @property
    def count(self) -> int:
        """Number of images."""
        return self.labels.total()

    @property
    def looked_at(self) -> int:
        """Number of images whose headers were read."""
        return len(self.heads) + len(self.damaged)


def spread_runs(count: int) -> list[tuple[int, int]]:
    """Return (start, stop) of the runs of images that are looked at: up to 16 of 16, spread over `count`."""
    if count <= _RUNS * _ROWS:
        return [(0, count)] if count else []
    last = count - _ROWS
    return [(first, first + _ROWS) for first in (last * run // (_RUNS - 1) for run in range(_RUNS))]


def outline_of_pixels(labels: Counter[int], width: int, height: int, *, grey: bool) -> Outline:
    """Return the outline of decoded images, all of one shape."""
    return Outline(labels, (Head(width, height, grey),) * labels.total())


def rows_between(files: Iterable[tuple[str, int]], start: int, stop: int) -> Iterator[tuple[str, int, int]]:
    """Yield (name, first row, row after the last) of rows that are numbered over files (name, rows)."""
    before = 0
    for name, rows in files:
        first, last = max(start - before, 0), min(stop - before, rows)
        if first < last:
            yield name, first, last
        before += rows
