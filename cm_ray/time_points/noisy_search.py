"""Several time points by noisy scores: the greedy search, each of whose points is pinpointed by samples.

Deterministic given the scores: whoever replays a search with the same scores takes the same way, so that a
driver that was killed goes on where it was by remembering what it sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias

from cm_ray.errors import UserError, closest
from cm_ray.time_points.greedy import Gap, Points, Stage, greedy
from cm_ray.time_points.integer_search import Method, ternary
from cm_ray.time_points.racing import ZONE, Pinpointed, fixed_size, raced
from cm_ray.time_points.sample_budget import Array, Effort, Memory, Partial, Request, Sampled, Scores
from cm_ray.time_points.smooth import TOLERANCE, smooth


@dataclass(frozen=True, slots=True)
class PointRequest:
    """Samples wanted."""

    points: Points
    """At which time points."""
    first: int
    """Number of the first; it decides the noise and the label."""
    count: int
    """How many."""


class PointScores(Protocol[Partial]):
    """How time points are measured; as `Scores`, of points in place of candidates."""

    def sample(self, requests: Sequence[PointRequest], /) -> Sequence[Partial]:
        """Return what each request comes to; all of them may be worked on at once."""
        ...

    def score(self, partial: Partial, /) -> Array:
        """Return a score, lower is better, and its bootstrap replicates: `Scores.score`."""
        ...


SPENDINGS = ("smooth", "raced", "fixed")
"""How samples are spent: by `smooth`, `raced` or `fixed_size`."""

Search: TypeAlias = Callable[[Gap, Scores[Partial], Memory[Partial]], Pinpointed]
"""A search for one point."""


def find_points(
    scores: PointScores[Partial],
    size: int,
    count: int,
    *,
    spending: str = "smooth",
    method: Method = ternary,
    effort: Effort | None = None,
    sweeps: int = 1,
    tolerance: float = TOLERANCE,
    zone: float = ZONE,
) -> Iterator[Stage[Pinpointed]]:
    """Return the stages that find 1, 2, .. `count` points on a grid of `size`; it searches as they are read.

    spending: one of `SPENDINGS`; "fixed" by `ternary` is OpenAI's procedure.  method: of "raced" and "fixed".
    effort: `Effort()` when there is none.  sweeps: refinements after each new point.  tolerance: of "smooth",
    zone: of "raced", both in the score's unit.  No samples of the same points are asked for twice.  Raises
    UserError when a number or a name is wrong.
    """
    pinpoint = _Pinpoint(scores, _search(spending, method, effort or Effort(), tolerance, zone))
    return greedy(pinpoint, size, count, sweeps=sweeps)


def _search(spending: str, method: Method, effort: Effort, tolerance: float, zone: float) -> Search[Partial]:
    def search(gap: Gap, scores: Scores[Partial], memory: Memory[Partial]) -> Pinpointed:
        ends, stays = (gap.left, gap.right), gap.incumbent
        if spending == "smooth":
            return smooth(*ends, scores, effort, tolerance=tolerance, incumbent=stays, memory=memory)
        if spending == "raced":
            return raced(method, *ends, scores, effort, zone=zone, incumbent=stays, memory=memory)
        return fixed_size(method, *ends, scores, effort, incumbent=stays, memory=memory)

    if spending not in SPENDINGS:
        raise UserError(
            f"There is no way {spending!r} to spend samples: {closest(spending, list(SPENDINGS))}"
        )
    return search


class _Pinpoint(Generic[Partial]):
    """A search for one point after the other that remembers what was sampled."""

    def __init__(self, scores: PointScores[Partial], search: Search[Partial]) -> None:
        self._scores, self._search = scores, search
        self._searched: dict[Points, Sampled[Partial]] = {}
        self._fresh: dict[Points, Sampled[Partial]] = {}

    def __call__(self, gap: Gap, /) -> Pinpointed:
        inside = {gap.filled(i): i for i in range(gap.left, gap.right + 1)}
        of_all = (self._searched, self._fresh)
        memory = Memory(*({inside[key]: what for key, what in of.items() if key in inside} for of in of_all))
        found = self._search(gap, _InGap(self._scores, gap), memory)
        for of, of_gap in zip(of_all, (memory.search, memory.fresh), strict=True):
            of.update({gap.filled(i): what for i, what in of_gap.items()})
        return found


@dataclass(frozen=True, slots=True)
class _InGap(Generic[Partial]):
    """Scores of a point's candidates, between its neighbours."""

    of: PointScores[Partial]
    gap: Gap

    def sample(self, requests: Sequence[Request], /) -> Sequence[Partial]:
        return self.of.sample(
            [PointRequest(self.gap.filled(r.candidate), r.first, r.count) for r in requests]
        )

    def score(self, partial: Partial, /) -> Array:
        return self.of.score(partial)
