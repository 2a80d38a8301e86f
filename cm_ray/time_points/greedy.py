"""Search for several time points: place them one at a time, then refine them in passes.

Song et al. 2023, section 6: "a greedy algorithm, where the time points are pinpointed one at a time".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from cm_ray.errors import UserError
from cm_ray.time_points.integer_search import Method, SearchResult, minimise

Points: TypeAlias = tuple[int, ...]
"""Ascending indices from 1 to N - 2 of the grid: the time points of multistep sampling."""

EvaluatePoints: TypeAlias = Callable[[Sequence[Points]], Sequence[float]]
"""Function that returns the scores of a batch of points, in the order of the batch."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The range in which one point may lie, strictly between its neighbours; the other points stay fixed."""

    below: Points
    """The points below it, ascending."""
    above: Points
    """The points above it, ascending."""
    left: int
    """Lowest index that the point may have."""
    right: int
    """Highest index that the point may have."""
    incumbent: int | None = None
    """Present index of the point when it is refined; None for a new point."""

    @property
    def others(self) -> tuple[Points, Points]:
        """The points that stay fixed, below and above."""
        return self.below, self.above

    def filled(self, index: int) -> Points:
        """Return all points, with this one at `index`."""
        return (*self.below, index, *self.above)


class HasBest(Protocol):
    """The result of a search for one point."""

    @property
    def best(self) -> int:
        """Index of the best candidate."""
        ...


Found_co = TypeVar("Found_co", bound=HasBest, covariant=True)


class PointSearch(Protocol[Found_co]):
    """A function that searches for one point."""

    def __call__(self, gap: Gap, /) -> Found_co:
        """Return the best index from gap.left to gap.right; the incumbent wins a tie."""
        ...


@dataclass(frozen=True, slots=True)
class Stage(Generic[Found_co]):
    """The search for one point, and its result."""

    gap: Gap
    """The range that was searched."""
    points: Points
    """All points after the search."""
    found: Found_co
    """The value that the search returned."""


def greedy(
    pinpoint: PointSearch[Found_co], size: int, count: int, *, passes: int = 0
) -> Iterator[Stage[Found_co]]:
    """Return an iterator of the stages that place 1, 2, .. `count` points on a grid of `size`.

    A new point goes below the others, next to t_min, as Algorithm 1 adds steps at its end; if there is no
    room, it goes into the widest gap. passes: maximal number of refinement passes after each new point. A
    pass searches all points again, from the highest down, so that the next point builds on refined ones;
    refinement ends when a pass moves no point. A point whose neighbours are the same as when it was last
    searched is skipped. The search runs while the stages are read. Raises UserError at once when the grid is
    too small or a number is too low.
    """
    if count < 1 or passes < 0:
        raise UserError(
            f"A greedy search needs 1 or more points and 0 or more passes, not {count} and {passes}."
        )
    if size < count + 2:
        raise UserError(
            f"A grid of {size} has no room for {count} points between its ends; give a larger grid."
        )
    return _stages(pinpoint, size, count, passes)


def _stages(pinpoint: PointSearch[Found_co], size: int, count: int, passes: int) -> Iterator[Stage[Found_co]]:
    points: Points = ()
    for placed in range(1, count + 1):
        stage = _stage(pinpoint, _room(points, size))
        yield stage
        points, settled = stage.points, {stage.gap.others: stage.found.best}
        for _ in range(passes):
            before = points
            for place in reversed(range(placed)):
                gap = _around(points, place, size)
                if settled.get(gap.others) != gap.incumbent:
                    stage = _stage(pinpoint, gap)
                    yield stage
                    points, settled[gap.others] = stage.points, stage.found.best
            if points == before:
                break


def _stage(pinpoint: PointSearch[Found_co], gap: Gap) -> Stage[Found_co]:
    found = pinpoint(gap)
    if not gap.left <= found.best <= gap.right:
        raise ValueError(f"a point between {gap.left} and {gap.right} was put at {found.best}")
    return Stage(gap, gap.filled(found.best), found)


def points_by_count(stages: Iterable[Stage[HasBest]]) -> dict[int, Points]:
    """Return the points for every count: those of the last stage with this count, after refinement."""
    return {len(stage.points): stage.points for stage in stages}


def _room(points: Points, size: int) -> Gap:
    """Return the gap for a new point: below all others, or the widest one."""
    ladder = (0, *points, size - 1)
    place = 0 if ladder[1] > 1 else max(range(len(points) + 1), key=lambda i: ladder[i + 1] - ladder[i])
    return Gap(points[:place], points[place:], ladder[place] + 1, ladder[place + 1] - 1)


def _around(points: Points, place: int, size: int) -> Gap:
    """Return the gap in which the point number `place` may move."""
    ladder = (0, *points, size - 1)
    return Gap(
        points[:place], points[place + 1 :], ladder[place] + 1, ladder[place + 2] - 1, incumbent=points[place]
    )


def exactly(
    method: Method, evaluate: EvaluatePoints
) -> tuple[PointSearch[SearchResult], dict[Points, float]]:
    """Return a search for one point by exact scores, and the mapping that it fills with all scores.

    No points are evaluated twice. A refinement never makes the score worse, as all earlier scores count.
    """
    scores: dict[Points, float] = {}

    def pinpoint(gap: Gap) -> SearchResult:
        def measured(indices: Sequence[int]) -> Sequence[float]:
            batch = [gap.filled(i) for i in indices]
            values = list(evaluate(batch))
            scores.update(zip(batch, values, strict=True))
            return values

        inside = {gap.filled(i): i for i in range(gap.left, gap.right + 1)}
        known = {inside[points]: value for points, value in scores.items() if points in inside}
        return minimise(method, gap.left, gap.right, measured, known)

    return pinpoint, scores


def checked_points(points: Sequence[int], size: int) -> Points:
    """Return points on a grid of `size`. Raises ValueError unless they ascend strictly inside the grid."""
    if any(low >= high for low, high in itertools.pairwise((0, *points, size - 1))):
        raise ValueError(f"points must ascend between 0 and {size - 1}, not {list(points)}")
    return tuple(points)
