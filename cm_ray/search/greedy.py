"""Several time points: one at a time, each between its neighbours, then refinement sweeps.

Song et al. 2023, section 6: "a greedy algorithm, where the time points are pinpointed one at a time".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cm_ray.errors import UserError
from cm_ray.search.integers import Method, minimise

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

    def filled(self, index: int) -> Points:
        """Return all points, with the one at `index`."""
        return (*self.below, index, *self.above)


class Pinpoint(Protocol):
    """A search for one point."""

    def __call__(self, gap: Gap, /) -> int:
        """Return the best index from gap.left to gap.right; the incumbent, unless another one is better."""
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """A search for one point, and what it led to."""

    gap: Gap
    """What was searched."""
    points: Points
    """All points after it."""


def greedy(pinpoint: Pinpoint, size: int, count: int, *, sweeps: int = 0) -> tuple[Stage, ...]:
    """Return the stages that place `count` points, for count + 1 steps of sampling, on a grid of `size`.

    A new point goes under the others, next to t_min, as Algorithm 1 adds steps at its end; when there is no
    room, into the widest gap. sweeps: how often all points are searched again, from the highest down; it ends
    sooner when a sweep moves none. Raises UserError when the grid has too few indices, or a number too low.
    """
    if count < 1 or sweeps < 0:
        raise UserError(f"A greedy search places at least one point, not {count}, in 0 or more sweeps.")
    if size < count + 2:
        raise UserError(f"A grid of {size} has no room for {count} points between its ends: take more steps.")
    stages: list[Stage] = []
    points: Points = ()
    for _ in range(count):
        stages.append(_stage(pinpoint, _room(points, size)))
        points = stages[-1].points
    for _ in range(sweeps):
        before = points
        for place in reversed(range(count)):
            stages.append(_stage(pinpoint, _around(points, place, size)))
            points = stages[-1].points
        if points == before:
            break
    return tuple(stages)


def _stage(pinpoint: Pinpoint, gap: Gap) -> Stage:
    index = pinpoint(gap)
    if not gap.left <= index <= gap.right:
        raise ValueError(f"a point between {gap.left} and {gap.right} was put at {index}")
    return Stage(gap, gap.filled(index))


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


def exactly(method: Method, evaluate: EvaluatePoints) -> tuple[Pinpoint, dict[Points, float]]:
    """Return a search for one point by exact scores, and the scores that it will have found.

    What was evaluated once is not evaluated again, and all of it counts: so a refinement never worsens.
    """
    scores: dict[Points, float] = {}

    def pinpoint(gap: Gap) -> int:
        def measured(indices: Sequence[int]) -> Sequence[float]:
            batch = [gap.filled(i) for i in indices]
            values = list(evaluate(batch))
            scores.update(zip(batch, values, strict=True))
            return values

        inside = {gap.filled(i): i for i in range(gap.left, gap.right + 1)}
        known = {inside[points]: value for points, value in scores.items() if points in inside}
        return minimise(method, gap.left, gap.right, measured, known).best

    return pinpoint, scores


def checked_points(points: Sequence[int], size: int) -> Points:
    """Return points on a grid of `size`. Raises ValueError when they do not ascend strictly inside it."""
    if any(low >= high for low, high in itertools.pairwise((0, *points, size - 1))):
        raise ValueError(f"points must ascend between 0 and {size - 1}, not {list(points)}")
    return tuple(points)
