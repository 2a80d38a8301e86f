"""Noisy scores that cost samples: which samples each candidate has, and their scores.

All candidates use the same noise and labels (common random numbers), numbered from 0: sample i of one
candidate is paired with sample i of another. A candidate is sampled up to a level; each level doubles the
samples.
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
"""The result of a range of samples. Results add up with ``+``."""


@dataclass(frozen=True, slots=True)
class SampleRange:
    """A range of samples of one candidate."""

    candidate: int
    """The candidate."""
    first: int
    """Index of the first sample; it decides the noise and the label."""
    count: int
    """Number of samples."""


class CandidateScorer(Protocol[Partial]):
    """Samples and scores candidates. An implementation has the networks, the features and the cluster."""

    def sample(self, ranges: Sequence[SampleRange], /) -> Sequence[Partial]:
        """Return the result of each range; the ranges may be sampled in parallel."""
        ...

    def score(self, partial: Partial, /) -> Array:
        """Return a score, lower is better, followed by its bootstrap replicates: (1 + replicates,).

        Replicate b resamples the same groups of samples for every candidate, so the difference of two
        candidates' replicates is a replicate of their difference. The first level needs at least 8 groups for
        a usable standard error. A bias that depends on the number of samples alone cancels. A score of
        infinity means that the candidate failed and never wins. `Ledger.bring` raises ValueError on a NaN.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBudget:
    """Number of samples that a candidate may cost."""

    first: int = 625
    """Samples at the first level."""
    full: int = 10_000
    """Samples at the last level; OpenAI's ternary search evaluates every candidate with this many."""

    def __post_init__(self) -> None:
        """Raise UserError unless 1 <= first <= full."""
        if not 1 <= self.first <= self.full:
            raise UserError(
                f"The first samples of a search must be 1 to its budget of {self.full}, not {self.first}; "
                "give a sixteenth of the budget, for example."
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of a candidate at each level: `first`, doubled up to `full`."""
        doublings = math.ceil(math.log2(self.full / self.first))
        return (*(self.first * 2**level for level in range(doublings)), self.full)


class Difference(NamedTuple):
    """The paired difference of two candidates' scores."""

    mean: float
    """Score of a minus score of b."""
    error: float
    """Bootstrap standard error of the difference."""


@dataclass(frozen=True, slots=True)
class CandidateRecord(Generic[Partial]):
    """The samples of one candidate and their scores."""

    merged: Partial
    """The result of all samples together."""
    scored: tuple[Array, ...]
    """The score and its replicates at every level so far."""


@dataclass(frozen=True, slots=True)
class SearchHistory(Generic[Partial]):
    """Samples that earlier searches took of the same candidates; a search adds its own."""

    search: dict[int, CandidateRecord[Partial]] = field(default_factory=dict)
    """Samples that decide in searches, in the order in which candidates were first sampled."""
    fresh: dict[int, CandidateRecord[Partial]] = field(default_factory=dict)
    """Fresh samples, which confirm results and do not decide in searches."""


class Ledger(Generic[Partial]):
    """The samples from index `start` on of every candidate, their scores and their cost."""

    def __init__(
        self,
        scorer: CandidateScorer[Partial],
        budget: SampleBudget,
        records: dict[int, CandidateRecord[Partial]] | None = None,
        *,
        start: int = 0,
    ) -> None:
        """records: samples that are there already; the ledger adds to this mapping in place."""
        self.budget = budget
        self.spent = 0
        """Samples taken for this ledger, of all candidates together."""
        self.rounds = 0
        """Number of batches that were sampled one after another."""
        self._scorer, self._start = scorer, start
        self._sampled = {} if records is None else records

    @property
    def candidates(self) -> tuple[int, ...]:
        """Candidates that have a score, in the order in which they were first sampled."""
        return tuple(self._sampled)

    def level(self, candidate: int) -> int:
        """Return the highest level of a candidate, -1 when it has no samples."""
        return len(self._sampled[candidate].scored) - 1 if candidate in self._sampled else -1

    def cost(self, levels: Mapping[int, int]) -> int:
        """Return the number of samples that it takes to bring candidates to levels."""
        return sum(sample_range.count for item in levels.items() for sample_range in self._missing(*item))

    def bring(self, levels: Mapping[int, int]) -> None:
        """Sample candidates up to the given levels in one round. Do nothing for those that are there already.

        Raises ValueError on a wrong number of results, a NaN, a score of minus infinity, or fewer than two
        replicates.
        """
        ranges = [sample_range for item in levels.items() for sample_range in self._missing(*item)]
        if not ranges:
            return
        for sample_range, result in zip(ranges, self._scorer.sample(ranges), strict=True):
            self._merge(sample_range.candidate, result)
        self.spent += sum(sample_range.count for sample_range in ranges)
        self.rounds += 1

    def score(self, candidate: int, level: int) -> Array:
        """Return the score and the replicates of a candidate at a level that it has reached."""
        return self._sampled[candidate].scored[level]

    def failed(self, candidate: int) -> bool:
        """Return True when a candidate has a score of infinity."""
        return bool(np.isinf(self.score(candidate, self.level(candidate))[0]))

    def difference(self, a: int, b: int) -> Difference:
        """Return the difference over the samples that both have; a failed one is infinitely worse."""
        if self.failed(a) or self.failed(b):
            behind = {(True, False): math.inf, (False, True): -math.inf, (True, True): 0.0}
            return Difference(behind[self.failed(a), self.failed(b)], 0.0)
        level = min(self.level(a), self.level(b))
        gap = self.score(a, level) - self.score(b, level)
        return Difference(float(gap[0]), float(gap[1:].std(ddof=1)))

    def foremost(self, candidates: Iterable[int]) -> int:
        """Return the candidate with most samples, the first of several; failed candidates come last."""
        return max(candidates, key=lambda candidate: (not self.failed(candidate), self.level(candidate)))

    def leader(self, candidates: Sequence[int]) -> int:
        """Return the best candidate; compare each with the one that has most samples."""
        foremost = self.foremost(candidates)
        return min(candidates, key=lambda candidate: self.difference(candidate, foremost).mean)

    def _missing(self, candidate: int, level: int) -> list[SampleRange]:
        """Return one range per missing level: a score is kept at each level, for later comparisons there."""
        edges = (0, *self.budget.counts)
        return [
            SampleRange(candidate, self._start + edges[step], edges[step + 1] - edges[step])
            for step in range(self.level(candidate) + 1, level + 1)
        ]

    def _merge(self, candidate: int, result: Any) -> None:
        before: CandidateRecord[Any] | None = self._sampled.get(candidate)
        merged = result if before is None else before.merged + result
        scored = np.asarray(self._scorer.score(merged), dtype=np.float64)
        if scored.ndim != 1 or len(scored) < 3 or np.isnan(scored).any() or scored.min() == -math.inf:
            raise ValueError(f"a score and two or more replicates must be numbers, not {scored}")
        if np.isinf(scored).any():
            scored = np.full_like(scored, math.inf)
        self._sampled[candidate] = CandidateRecord(merged, (*(before.scored if before else ()), scored))


def fixed_size_cost(
    left: int, right: int, best: int, budget: SampleBudget, incumbent: int | None = None
) -> int:
    """Return the samples of a ternary search that gives each candidate the full budget and finds `best`.

    incumbent: a candidate that an earlier search has evaluated already.
    """

    known = {} if incumbent is None else {incumbent: float(abs(incumbent - best))}
    found = minimise(ternary, left, right, lambda batch: [abs(i - best) for i in batch], known)
    return found.num_evaluated * budget.full
