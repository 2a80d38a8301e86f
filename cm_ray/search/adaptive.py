"""Searches over noisy scores that spend samples where they matter.

Every answer is confirmed on fresh samples, and the samples spent are set against those of the ternary search
that gives each candidate the whole budget.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass

from cm_ray.search.effort import Difference, Effort, Ledger, Partial, Scores, fixed_size_cost
from cm_ray.search.integers import Method
from cm_ray.search.race import could_win_by, race


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What fresh samples say about the winner."""

    rival: int | None
    """The candidate that it was compared with; none when there was only one."""
    behind: Difference | None
    """The rival's score less the winner's, over fresh samples alone."""
    overturned: bool
    """Whether the search had the rival as its winner."""
    score: float
    """The winner's score, over fresh samples alone: without the luck that made it win."""
    samples: int
    """How many they were."""


@dataclass(frozen=True, slots=True)
class Pinpointed:
    """The outcome of a search over noisy scores."""

    best: int
    """The winner."""
    confirmation: Confirmation
    """On fresh samples."""
    counts: Mapping[int, int]
    """Samples of every candidate of the search, in the order of evaluation; fresh ones not included."""
    spent: int
    """Samples in all, those of the confirmation included."""
    fixed: int
    """Samples that the ternary search of fixed size would have spent to find the same."""
    rounds: int
    """Batches that were sampled one after the other."""

    @property
    def share(self) -> float:
        """Samples spent, as a share of what the fixed size would have taken."""
        return self.spent / self.fixed


def raced(
    method: Method, left: int, right: int, scores: Scores[Partial], effort: Effort, *, zone: float = 0.0
) -> Pinpointed:
    """Search left .. right by a method whose every decision is a race, and a last one of all candidates.

    zone: a difference of scores that does not matter. What the method would evaluate ahead is left out.
    Raises ValueError when there is no candidate.
    """
    ledger: Ledger[Partial] = Ledger(scores, effort)
    known: dict[int, float] = {}
    for step in method(left, right, known):
        leader = race(ledger, step.decides, zone=zone).leader
        known.update({i: ledger.difference(i, leader).mean for i in step.decides})
    best = race(ledger, ledger.candidates, zone=zone).leader
    behind = {i: ledger.difference(i, best) for i in ledger.candidates if i != best}
    return confirmed(ledger, best, behind, (left, right), zone=zone)


def confirmed(
    ledger: Ledger[Partial],
    best: int,
    behind: Mapping[int, Difference],
    ends: tuple[int, int],
    *,
    zone: float = 0.0,
) -> Pinpointed:
    """Race the winner on fresh samples with the candidate that may be better by most.

    behind: the others' scores less the winner's, as far as the search knows.  Each of the two takes up to half
    of the samples that the winner took.  The answer is the better one by search and fresh samples together.
    """
    counts, rival = ledger.effort.counts, max(behind, key=lambda i: could_win_by(behind[i]), default=None)
    fresh = ledger.fresh(counts[max(ledger.level(best) - 1, 0)])
    race(fresh, [best] if rival is None else [best, rival], zone=zone)
    winner, loser = best, rival
    if rival is not None and _pooled(behind[rival], fresh.difference(rival, best)) < 0:
        winner, loser = rival, best
    level = fresh.level(winner)
    confirmation = Confirmation(
        rival=loser,
        behind=None if loser is None else fresh.difference(loser, winner),
        overturned=winner != best,
        score=float(fresh.score(winner, level)[0]),
        samples=counts[level],
    )
    return Pinpointed(
        best=winner,
        confirmation=confirmation,
        counts={i: counts[ledger.level(i)] for i in ledger.candidates},
        spent=ledger.spent + fresh.spent,
        fixed=fixed_size_cost(*ends, winner, ledger.effort),
        rounds=ledger.rounds + fresh.rounds,
    )


def _pooled(*differences: Difference) -> float:
    """Return the mean of estimates of the same difference, weighted by their precision."""
    weights = [1 / max(difference.error**2, 1e-30) for difference in differences]
    means = [difference.mean for difference in differences]
    return sum(map(operator.mul, weights, means)) / sum(weights)
