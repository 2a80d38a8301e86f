"""Several time points: one at a time, each between its neighbours, then refinement sweeps.

Song et al. 2023, section 6: "a greedy algorithm, where the time points are pinpointed one at a time".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from cm_ray.errors import UserError
from cm_ray.time_points.integer_search import Found, Method, minimise

Points: TypeAlias = tuple[int, ...]
"""Ascending indices between 0 and N - 1, neither included: the time points of multistep sampling."""

EvaluatePoints: TypeAlias = Callable[[Sequence[Points]], Sequence[float]]
"""Values of a batch of points, in its order."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Where one point is to go: strictly between two neighbours, while the others stay."""

    below: Points
    """The points under it, ascending."""
    above: Points
    """The points over it, ascending."""
    left: int
    """Lowest index that it may have."""
    right: int
    """Highest index that it may have."""
    incumbent: int | None = None
    """Where it is, when it is to be refined."""

    @property
    def others(self) -> tuple[Points, Points]:
        """The points that stay."""
        return self.below, self.above

    def filled(self, index: int) -> Points:
        """Return all points, with the one at `index`."""
        return (*self.below, index, *self.above)


class Outcome(Protocol):
    """What a search for one point found."""

    @property
    def best(self) -> int:
        """The index."""
        ...


Found_co = TypeVar("Found_co", bound=Outcome, covariant=True)


class Pinpoint(Protocol[Found_co]):
    """A search for one point."""

    def __call__(self, gap: Gap, /) -> Found_co:
        """Return the best index from gap.left to gap.right; the incumbent, unless another one is better."""
        ...


@dataclass(frozen=True, slots=True)
class Stage(Generic[Found_co]):
    """A search for one point, and what it led to."""

    gap: Gap
    """What was searched."""
    points: Points
    """All points after it."""
    found: Found_co
    """What the search returned."""


def greedy(
    pinpoint: Pinpoint[Found_co], size: int, count: int, *, sweeps: int = 0
) -> Iterator[Stage[Found_co]]:
    """Return the stages that place 1, 2, .. `count` points, for 2, 3, .. steps, on a grid of `size`.

    A new point goes under the others, next to t_min, as Algorithm 1 adds steps at its end; when there is no
    room, into the widest gap. sweeps: how often, after each new point, all points are searched again from the
    highest down, so that the next one builds on refined ones; it ends sooner when a sweep moves none. A point
    whose neighbours are what they were when it was last searched is left alone. The search runs as the stages
    are read. Raises UserError at once when the grid has too few indices, or a number is too low.
    """
    if count < 1 or sweeps < 0:
        raise UserError(f"A greedy search places at least one point, not {count}, in 0 or more sweeps.")
    if size < count + 2:
        raise UserError(f"A grid of {size} has no room for {count} points between its ends: take more steps.")
    return _stages(pinpoint, size, count, sweeps)


def _stages(pinpoint: Pinpoint[Found_co], size: int, count: int, sweeps: int) -> Iterator[Stage[Found_co]]:
    points: Points = ()
    for placed in range(1, count + 1):
        stage = _stage(pinpoint, _room(points, size))
        yield stage
        points, settled = stage.points, {stage.gap.others: stage.found.best}
        for _ in range(sweeps):
            before = points
            for place in reversed(range(placed)):
                gap = _around(points, place, size)
                if settled.get(gap.others) != gap.incumbent:
                    stage = _stage(pinpoint, gap)
                    yield stage
                    points, settled[gap.others] = stage.points, stage.found.best
            if points == before:
                break


def _stage(pinpoint: Pinpoint[Found_co], gap: Gap) -> Stage[Found_co]:
    found = pinpoint(gap)
    if not gap.left <= found.best <= gap.right:
        raise ValueError(f"a point between {gap.left} and {gap.right} was put at {found.best}")
    return Stage(gap, gap.filled(found.best), found)


def points_by_count(stages: Iterable[Stage[Outcome]]) -> dict[int, Points]:
    """Return the points for every count: those of its last stage, refined."""
    return {len(stage.points): stage.points for stage in stages}


def _room(points: Points, size: int) -> Gap:
    """Return where a new point goes: under all others, or where there is most room."""
    ladder = (0, *points, size - 1)
    place = 0 if ladder[1] > 1 else max(range(len(points) + 1), key=lambda i: ladder[i + 1] - ladder[i])
    return Gap(points[:place], points[place:], ladder[place] + 1, ladder[place + 1] - 1)


def _around(points: Points, place: int, size: int) -> Gap:
    """Return where the point of a place may move."""
    ladder = (0, *points, size - 1)
    return Gap(
        points[:place], points[place + 1 :], ladder[place] + 1, ladder[place + 2] - 1, incumbent=points[place]
    )


def exactly(method: Method, evaluate: EvaluatePoints) -> tuple[Pinpoint[Found], dict[Points, float]]:
    """Return a search for one point by exact scores, and the scores that it will have found.

    What was evaluated once is not evaluated again, and all of it counts: so a refinement never worsens.
    """
    scores: dict[Points, float] = {}

    def pinpoint(gap: Gap) -> Found:
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
    """Return points on a grid of `size`. Raises ValueError when they do not ascend strictly inside it."""
    if any(low >= high for low, high in itertools.pairwise((0, *points, size - 1))):
        raise ValueError(f"points must ascend between 0 and {size - 1}, not {list(points)}")
    return tuple(points)
