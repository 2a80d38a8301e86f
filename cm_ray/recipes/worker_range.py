"""The numbers of workers that a training may have: one number, or a range of them such as 2:8."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_RANGE = re.compile(r"([1-9]\d{0,5}):([1-9]\d{0,5})")


@dataclass(frozen=True, slots=True)
class WorkerRange:
    """The smallest and the largest number of workers of a training.

    The global batch is always cut into as many parts as the largest number. The numbers in between are the
    smallest one times the first of the prime factors that lead to the largest one: each divides the next, so
    that all of them can add up the parts' gradients in the same order.
    """

    least: int
    most: int

    @classmethod
    def of(cls, value: int | str) -> WorkerRange:
        """Return the range of a setting: 8 or 2:8. Raises ValueError, with the end of a sentence."""
        if isinstance(value, int):
            if value < 1:
                raise ValueError(f"must be at least 1, not {value}")
            return cls(value, value)
        match = _RANGE.fullmatch(value)
        if match is None:
            raise ValueError(f"must be a number such as 8, or a range such as 2:8, not {value!r}")
        least, most = map(int, match.groups())
        if least >= most or most % least:
            raise ValueError(f"{value} must end with a larger multiple of {least}: try {_like(least, most)}")
        return cls(least, most)

    @property
    def is_elastic(self) -> bool:
        """True if the number may change."""
        return self.least < self.most

    @property
    def factors(self) -> tuple[int, ...]:
        """The prime factors that lead from the smallest to the largest number, in order."""
        found, left, factor = [], self.most // self.least, 2
        while left > 1:
            if factor * factor > left:
                factor = left
            while left % factor == 0:
                found.append(factor)
                left //= factor
            factor += 1
        return tuple(found)

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of workers that there may be, ascending: 2, 4 and 8 of 2:8."""
        return tuple(itertools.accumulate(self.factors, lambda a, b: a * b, initial=self.least))

    def levels_below(self, workers: int) -> tuple[int, ...]:
        """Return how many neighbours a tree of sums adds up at each level below the workers, leaves first."""
        return tuple(reversed(self.factors[self.counts.index(workers) :]))

    def levels_above(self, workers: int) -> tuple[int, ...]:
        """Return how many neighbours the tree adds up at each level above the workers, the lowest first."""
        return (*reversed(self.factors[: self.counts.index(workers)]), self.least)

    def __str__(self) -> str:
        """Return the range in a sentence, such as "2, 4 or 8"."""
        *before, last = map(str, self.counts)
        return f"{', '.join(before)} or {last}" if before else last


def _like(least: int, most: int) -> str:
    """Return a range that is allowed and near."""
    return f"{least}:{least * max(2, most // least)}"
