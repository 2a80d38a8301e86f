"""Search for several time points with noisy scores: the greedy search, by samples for each point.

The search is deterministic given the scores. So a caller that stores its samples can repeat the search after
an interruption and reach the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias

from cm_ray.errors import UserError, closest
from cm_ray.time_points.greedy import Gap, Points, Stage, greedy
from cm_ray.time_points.integer_search import Method, ternary
from cm_ray.time_points.racing import ZONE, PointResult, fixed_size, raced
from cm_ray.time_points.sample_budget import (
    Array,
    CandidateRecord,
    CandidateScorer,
    Partial,
    SampleBudget,
    SampleRange,
    SearchHistory,
)
from cm_ray.time_points.smooth import TOLERANCE, smooth


@dataclass(frozen=True, slots=True)
class PointSampleRange:
    """A range of samples of time points."""

    points: Points
    """The time points."""
    first: int
    """Index of the first sample; it decides the noise and the label."""
    count: int
    """Number of samples."""


class PointScorer(Protocol[Partial]):
    """Scores time points from samples; like `CandidateScorer`, with points in place of candidates."""

    def sample(self, ranges: Sequence[PointSampleRange], /) -> Sequence[Partial]:
        """Return the result of each range; the ranges may be sampled in parallel."""
        ...

    def score(self, partial: Partial, /) -> Array:
        """Return a score, lower is better, and its bootstrap replicates; see `CandidateScorer.score`."""
        ...


STRATEGIES = ("smooth", "raced", "fixed")
"""Ways to spend samples: `smooth`, `raced` and `fixed_size`."""

Search: TypeAlias = Callable[[Gap, CandidateScorer[Partial], SearchHistory[Partial]], PointResult]
"""Function that searches for one point."""


def find_points(
    scorer: PointScorer[Partial],
    size: int,
    count: int,
    *,
    strategy: str = "smooth",
    method: Method = ternary,
    budget: SampleBudget | None = None,
    passes: int = 1,
    tolerance: float = TOLERANCE,
    zone: float = ZONE,
) -> Iterator[Stage[PointResult]]:
    """Return an iterator of the stages that find 1, 2, .. `count` points on a grid of `size`.

    The search runs while the stages are read. strategy: one of `STRATEGIES`; "fixed" with `ternary` is
    OpenAI's procedure.  method: search method of "raced" and "fixed".  budget: None stands for
    `SampleBudget()`.  passes: refinement passes after each new point.  tolerance (of "smooth") and zone (of
    "raced") are in the unit of the score.  No samples of the same points are requested twice.  Raises
    UserError when a number or a name is wrong.
    """
    pinpoint = _PointSearch(scorer, _search(strategy, method, budget or SampleBudget(), tolerance, zone))
    return greedy(pinpoint, size, count, passes=passes)


def _search(
    strategy: str, method: Method, budget: SampleBudget, tolerance: float, zone: float
) -> Search[Partial]:
    def search(gap: Gap, scorer: CandidateScorer[Partial], history: SearchHistory[Partial]) -> PointResult:
        ends, stays = (gap.left, gap.right), gap.incumbent
        if strategy == "smooth":
            return smooth(*ends, scorer, budget, tolerance=tolerance, incumbent=stays, history=history)
        if strategy == "raced":
            return raced(method, *ends, scorer, budget, zone=zone, incumbent=stays, history=history)
        return fixed_size(method, *ends, scorer, budget, incumbent=stays, history=history)

    if strategy not in STRATEGIES:
        raise UserError(f"There is no search strategy {strategy!r}: {closest(strategy, list(STRATEGIES))}")
    return search


class _PointSearch(Generic[Partial]):
    """Searches for one point after another and keeps the samples for later searches."""

    def __init__(self, scorer: PointScorer[Partial], search: Search[Partial]) -> None:
        self._scorer, self._search = scorer, search
        self._searched: dict[Points, CandidateRecord[Partial]] = {}
        self._fresh: dict[Points, CandidateRecord[Partial]] = {}

    def __call__(self, gap: Gap, /) -> PointResult:
        inside = {gap.filled(i): i for i in range(gap.left, gap.right + 1)}
        of_all = (self._searched, self._fresh)
        history = SearchHistory(
            *({inside[key]: what for key, what in of.items() if key in inside} for of in of_all)
        )
        found = self._search(gap, _InGap(self._scorer, gap), history)
        for of, of_gap in zip(of_all, (history.search, history.fresh), strict=True):
            of.update({gap.filled(i): what for i, what in of_gap.items()})
        return found


@dataclass(frozen=True, slots=True)
class _InGap(Generic[Partial]):
    """Scores the candidates for one point while the other points stay fixed."""

    of: PointScorer[Partial]
    gap: Gap

    def sample(self, ranges: Sequence[SampleRange], /) -> Sequence[Partial]:
        return self.of.sample(
            [PointSampleRange(self.gap.filled(r.candidate), r.first, r.count) for r in ranges]
        )

    def score(self, partial: Partial, /) -> Array:
        return self.of.score(partial)
