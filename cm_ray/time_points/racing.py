"""Search with noisy scores by races, which spend samples where they matter, or with the full budget for each.

Results of the adaptive searches are confirmed on fresh samples. Their cost is compared with the ternary
search that gives every candidate the full budget.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cm_ray.time_points.integer_search import Method, check_range, minimise
from cm_ray.time_points.race import could_win_by, race
from cm_ray.time_points.sample_budget import (
    CandidateScorer,
    Difference,
    Ledger,
    Partial,
    SampleBudget,
    SearchHistory,
    fixed_size_cost,
)

ZONE = 0.04
"""Difference of scores, in FID, that does not matter: neighbours near a minimum differ by less."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Comparison of the winner with its rival on fresh samples."""

    rival: int | None
    """The candidate that the winner was compared with; None when there was only one candidate."""
    behind: Difference | None
    """Score of the rival minus that of the winner, on fresh samples alone."""
    overturned: bool
    """True when the search alone had chosen the rival."""
    score: float
    """Score of the winner on fresh samples alone, free of the selection bias of the search."""
    samples: int
    """Number of fresh samples of the winner."""


@dataclass(frozen=True, slots=True)
class PointResult:
    """The result of a search with noisy scores."""

    best: int
    """The winner."""
    confirmation: Confirmation | None
    """The confirmation on fresh samples; None after a search of fixed size."""
    counts: Mapping[int, int]
    """Samples that decided, for every candidate in the order of evaluation, without the fresh ones."""
    spent: int
    """Samples taken by this search, including those of the confirmation."""
    fixed: int
    """Samples that the ternary search of fixed size would have needed for the same result."""
    rounds: int
    """Number of batches that were sampled one after another."""


def raced(
    method: Method,
    left: int,
    right: int,
    scorer: CandidateScorer[Partial],
    budget: SampleBudget,
    *,
    zone: float = ZONE,
    incumbent: int | None = None,
    history: SearchHistory[Partial] | None = None,
) -> PointResult:
    """Search left .. right by a method that decides by races, and end with a race of all candidates.

    zone: difference of scores that does not matter, in the unit of the score.  incumbent: a candidate from
    the history that stays unless another one is better on all samples.  Candidates that the method would
    evaluate ahead are left out, since they would cost samples.  Raises ValueError when there is no candidate.
    """
    check_range(left, right)
    history = history or SearchHistory()
    ledger = Ledger(scorer, budget, history.search)
    known: dict[int, float] = {}
    for step in method(left, right, known):
        leader = race(ledger, step.decides, zone=zone)
        known.update({i: ledger.difference(i, leader).mean for i in step.decides})
    best = race(ledger, ledger.candidates, zone=zone)
    behind = {i: ledger.difference(i, best) for i in ledger.candidates if i != best}
    answer = Unconfirmed(best, behind, fixed_size_cost(left, right, best, budget, incumbent), incumbent)
    return confirmed(answer, ledger, Ledger(scorer, budget, history.fresh, start=budget.full), zone=zone)


def fixed_size(
    method: Method,
    left: int,
    right: int,
    scorer: CandidateScorer[Partial],
    budget: SampleBudget,
    *,
    incumbent: int | None = None,
    history: SearchHistory[Partial] | None = None,
) -> PointResult:
    """Search left .. right with the full budget for every candidate, as OpenAI's ternary search does.

    Raises ValueError when there is no candidate.
    """
    budget = SampleBudget(first=budget.full, full=budget.full)
    ledger = Ledger(scorer, budget, (history or SearchHistory()).search)

    def evaluate(batch: Sequence[int]) -> list[float]:
        ledger.bring(dict.fromkeys(batch, 0))
        return [float(ledger.score(i, 0)[0]) for i in batch]

    remembered = ledger.candidates
    found = minimise(method, left, right, evaluate, dict(zip(remembered, evaluate(remembered), strict=True)))
    return PointResult(
        best=found.best,
        confirmation=None,
        counts=dict.fromkeys(found.values, budget.full),
        spent=ledger.spent,
        fixed=fixed_size_cost(left, right, found.best, budget, incumbent),
        rounds=ledger.rounds,
    )


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The result of a search before its confirmation."""

    best: int
    """The best candidate so far."""
    behind: Mapping[int, Difference]
    """Scores of the other candidates minus that of the best, as estimated by the search."""
    fixed: int
    """Samples that the ternary search of fixed size would have needed."""
    incumbent: int | None
    """The candidate that stays unless another one is better."""

    @property
    def rival(self) -> int | None:
        """The incumbent, or else the candidate that may win by most; None if there is only one."""
        if self.incumbent in self.behind:
            return self.incumbent
        return max(self.behind, key=lambda i: could_win_by(self.behind[i]), default=None)


def confirmed(
    answer: Unconfirmed, ledger: Ledger[Partial], fresh: Ledger[Partial], *, zone: float = 0.0
) -> PointResult:
    """Race the best candidate and its rival on fresh samples, up to half of the samples that both have.

    The winner is the better one by the samples of the search and the fresh samples together.
    """
    counts, winner, loser = ledger.budget.counts, answer.best, answer.rival
    runners = [winner] if loser is None else [winner, loser]
    race(fresh, runners, zone=zone, top=fresh_level(min(map(ledger.level, runners))))
    if loser is not None and _beaten(answer, fresh, loser):
        winner, loser = loser, winner
    level = fresh.level(winner)
    confirmation = Confirmation(
        rival=loser,
        behind=None if loser is None else fresh.difference(loser, winner),
        overturned=winner != answer.best,
        score=float(fresh.score(winner, level)[0]),
        samples=counts[level],
    )
    return PointResult(
        best=winner,
        confirmation=confirmation,
        counts={i: counts[ledger.level(i)] for i in ledger.candidates},
        spent=ledger.spent + fresh.spent,
        fixed=answer.fixed,
        rounds=ledger.rounds + fresh.rounds,
    )


def fresh_level(level: int) -> int:
    """Return the level of fresh samples that confirms a level of the search: half of its samples."""
    return max(level - 1, 0)


def _beaten(answer: Unconfirmed, fresh: Ledger[Partial], rival: int) -> bool:
    """Return True when the rival is better on all samples; an incumbent also wins a tie."""
    behind = _pooled(answer.behind[rival], fresh.difference(rival, answer.best))
    return behind < 0 or (behind == 0 and rival == answer.incumbent)


def _pooled(*differences: Difference) -> float:
    """Return the mean of estimates of the same difference, weighted by their precision."""
    weights = [1 / max(difference.error**2, 1e-30) for difference in differences]
    means = [difference.mean for difference in differences]
    return sum(map(operator.mul, weights, means)) / sum(weights)
