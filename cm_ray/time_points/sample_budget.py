"""Noisy scores that cost samples: what has been sampled for which candidate, and what it says.

All candidates take the same samples' noise and labels (common random numbers), numbered from 0: sample i of
one candidate pairs with sample i of another. A candidate is sampled up to a level; levels double.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cm_ray.errors import UserError
from cm_ray.time_points.integer_search import minimise, ternary

Array = NDArray[np.float64]

Partial = TypeVar("Partial")
"""What a range of samples comes to: a monoid, with ``+``."""


@dataclass(frozen=True, slots=True)
class Request:
    """Samples wanted."""

    candidate: int
    """Of which candidate."""
    first: int
    """Number of the first; it decides the noise and the label."""
    count: int
    """How many."""


class Scores(Protocol[Partial]):
    """How candidates are measured: where the networks, the features and the cluster are."""

    def sample(self, requests: Sequence[Request], /) -> Sequence[Partial]:
        """Return what each request comes to; all of them may be worked on at once."""
        ...

    def score(self, partial: Partial, /) -> Array:
        """Return a score, lower is better, and its bootstrap replicates (1 + replicates,).

        Replicate b resamples the same units of work for every candidate, as units pair: the difference of two
        candidates' replicates is a replicate of their difference. At least 8 units in the fewest samples give
        a usable standard error. A bias that depends on the count alone does no harm. A score of infinity says
        that the candidate failed: it never wins. A NaN is a ValueError of whoever reads it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How many samples a candidate may cost."""

    first: int = 625
    """Samples of the first level."""
    budget: int = 10_000
    """Samples of the last level; the size at which OpenAI's ternary search evaluates each candidate."""

    def __post_init__(self) -> None:
        """Raise UserError when the numbers are not in order."""
        if not 1 <= self.first <= self.budget:
            raise UserError(
                f"A search begins with 1 sample or more and ends within its budget of {self.budget}, "
                f"not with {self.first}: set the first samples to a sixteenth of the budget, say."
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of a candidate at each level: doubling from `first` to `budget`."""
        doublings = math.ceil(math.log2(self.budget / self.first))
        return (*(self.first * 2**level for level in range(doublings)), self.budget)


class Difference(NamedTuple):
    """A paired difference of two candidates' scores."""

    mean: float
    """a's score less b's."""
    error: float
    """Its bootstrap standard error."""


@dataclass(frozen=True, slots=True)
class Sampled(Generic[Partial]):
    """What one candidate's samples came to."""

    merged: Partial
    """All of them together."""
    scored: tuple[Array, ...]
    """The score and its replicates at every level so far."""


@dataclass(frozen=True, slots=True)
class Memory(Generic[Partial]):
    """What earlier searches sampled of the same candidates; a search adds what it samples."""

    search: dict[int, Sampled[Partial]] = field(default_factory=dict)
    """In the order in which they were first sampled."""
    fresh: dict[int, Sampled[Partial]] = field(default_factory=dict)
    """Of the samples that no search decides by."""


class Ledger(Generic[Partial]):
    """What was sampled from `start` on, what it scored, and what it cost."""

    def __init__(
        self,
        scores: Scores[Partial],
        effort: Effort,
        sampled: dict[int, Sampled[Partial]] | None = None,
        *,
        start: int = 0,
    ) -> None:
        """sampled: what is there already; it grows in place."""
        self.effort = effort
        self.spent = 0
        """Samples that were taken for it, all candidates together."""
        self.rounds = 0
        """Batches that were sampled, one after the other."""
        self._scores, self._start = scores, start
        self._sampled = {} if sampled is None else sampled

    @property
    def candidates(self) -> tuple[int, ...]:
        """Candidates that have a score, in the order in which they were first sampled."""
        return tuple(self._sampled)

    def level(self, candidate: int) -> int:
        """Return the highest level of a candidate, -1 when it has none."""
        return len(self._sampled[candidate].scored) - 1 if candidate in self._sampled else -1

    def cost(self, levels: Mapping[int, int]) -> int:
        """Return the samples that bringing candidates to levels takes."""
        return sum(request.count for item in levels.items() for request in self._missing(*item))

    def bring(self, levels: Mapping[int, int]) -> None:
        """Sample candidates up to levels, all in one round. Does nothing where they are there already.

        Raises ValueError on another number of parts, a NaN, an infinite merit, or too few replicates.
        """
        requests = [request for item in levels.items() for request in self._missing(*item)]
        if not requests:
            return
        for request, part in zip(requests, self._scores.sample(requests), strict=True):
            self._merge(request.candidate, part)
        self.spent += sum(request.count for request in requests)
        self.rounds += 1

    def score(self, candidate: int, level: int) -> Array:
        """Return the score and the replicates of a candidate at a level that it reached."""
        return self._sampled[candidate].scored[level]

    def failed(self, candidate: int) -> bool:
        """Say whether a candidate scored infinity."""
        return bool(np.isinf(self.score(candidate, self.level(candidate))[0]))

    def difference(self, a: int, b: int) -> Difference:
        """Compare two candidates over the samples that both have; what failed is infinitely worse."""
        if self.failed(a) or self.failed(b):
            behind = {(True, False): math.inf, (False, True): -math.inf, (True, True): 0.0}
            return Difference(behind[self.failed(a), self.failed(b)], 0.0)
        level = min(self.level(a), self.level(b))
        gap = self.score(a, level) - self.score(b, level)
        return Difference(float(gap[0]), float(gap[1:].std(ddof=1)))

    def foremost(self, candidates: Iterable[int]) -> int:
        """Return the candidate that has most samples, the first of several; what failed comes last."""
        return max(candidates, key=lambda candidate: (not self.failed(candidate), self.level(candidate)))

    def leader(self, candidates: Sequence[int]) -> int:
        """Return the best, each compared with the one that has most samples; ties to the earlier."""
        foremost = self.foremost(candidates)
        return min(candidates, key=lambda candidate: self.difference(candidate, foremost).mean)

    def _missing(self, candidate: int, level: int) -> list[Request]:
        """Return a request a level: scores are kept at each, for whom they will be compared with."""
        edges = (0, *self.effort.counts)
        return [
            Request(candidate, self._start + edges[step], edges[step + 1] - edges[step])
            for step in range(self.level(candidate) + 1, level + 1)
        ]

    def _merge(self, candidate: int, part: Any) -> None:
        before: Sampled[Any] | None = self._sampled.get(candidate)
        merged = part if before is None else before.merged + part
        scored = np.asarray(self._scores.score(merged), dtype=np.float64)
        if scored.ndim != 1 or len(scored) < 3 or np.isnan(scored).any() or scored.min() == -math.inf:
            raise ValueError(f"a score and two or more replicates must be numbers, not {scored}")
        if np.isinf(scored).any():
            scored = np.full_like(scored, math.inf)
        self._sampled[candidate] = Sampled(merged, (*(before.scored if before else ()), scored))


def fixed_size_cost(left: int, right: int, best: int, effort: Effort, incumbent: int | None = None) -> int:
    """Return the samples of a ternary search that gives each candidate the budget and finds `best`.

    incumbent: one that the search before it has evaluated.
    """

    known = {} if incumbent is None else {incumbent: float(abs(incumbent - best))}
    found = minimise(ternary, left, right, lambda batch: [abs(i - best) for i in batch], known)
    return found.evaluations * effort.budget
