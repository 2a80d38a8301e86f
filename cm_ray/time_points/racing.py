"""Searches over noisy scores: by races that spend samples where they matter, or all at a fixed size.

Adaptive answers are confirmed on fresh samples, and the samples spent are set against those of the ternary
search that gives each candidate the whole budget.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cm_ray.time_points.integer_search import Method, check_range, minimise
from cm_ray.time_points.race import could_win_by, race
from cm_ray.time_points.sample_budget import (
    Difference,
    Effort,
    Ledger,
    Memory,
    Partial,
    Scores,
    fixed_size_cost,
)

ZONE = 0.04
"""A difference of scores, in FID, that is not worth telling: near a minimum, neighbours differ by less."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What fresh samples say about the winner."""

    rival: int | None
    """The candidate that it was compared with; none when there was only one."""
    behind: Difference | None
    """The rival's score less the winner's, over fresh samples alone."""
    overturned: bool
    """Whether the search alone had the rival as its winner."""
    score: float
    """The winner's score, over fresh samples alone: without the luck that made it win."""
    samples: int
    """How many they were."""


@dataclass(frozen=True, slots=True)
class Pinpointed:
    """The outcome of a search over noisy scores."""

    best: int
    """The winner."""
    confirmation: Confirmation | None
    """On fresh samples; none of a search of fixed size."""
    counts: Mapping[int, int]
    """Samples that decided, of every candidate, in the order of evaluation; fresh ones not included."""
    spent: int
    """Samples that were taken for this search, those of the confirmation included."""
    fixed: int
    """Samples that the ternary search of fixed size would have spent to find the same."""
    rounds: int
    """Batches that were sampled one after the other."""


def raced(
    method: Method,
    left: int,
    right: int,
    scores: Scores[Partial],
    effort: Effort,
    *,
    zone: float = ZONE,
    incumbent: int | None = None,
    memory: Memory[Partial] | None = None,
) -> Pinpointed:
    """Search left .. right by a method whose every decision is a race, and a last one of all candidates.

    zone: a difference of scores that does not matter, in the score's unit.  incumbent: a candidate in memory
    that stays, unless another one is better on all samples.  What the method would evaluate ahead is left
    out: it would cost samples.  Raises ValueError when there is no candidate.
    """
    check_range(left, right)
    memory = memory or Memory()
    ledger = Ledger(scores, effort, memory.search)
    known: dict[int, float] = {}
    for step in method(left, right, known):
        leader = race(ledger, step.decides, zone=zone)
        known.update({i: ledger.difference(i, leader).mean for i in step.decides})
    best = race(ledger, ledger.candidates, zone=zone)
    behind = {i: ledger.difference(i, best) for i in ledger.candidates if i != best}
    answer = Answer(best, behind, fixed_size_cost(left, right, best, effort, incumbent), incumbent)
    return confirmed(answer, ledger, Ledger(scores, effort, memory.fresh, start=effort.budget), zone=zone)


def fixed_size(
    method: Method,
    left: int,
    right: int,
    scores: Scores[Partial],
    effort: Effort,
    *,
    incumbent: int | None = None,
    memory: Memory[Partial] | None = None,
) -> Pinpointed:
    """Search left .. right with the whole budget for every evaluation, as OpenAI's ternary search does.

    Raises ValueError when there is no candidate.
    """
    effort = Effort(first=effort.budget, budget=effort.budget)
    ledger = Ledger(scores, effort, (memory or Memory()).search)

    def evaluate(batch: Sequence[int]) -> list[float]:
        ledger.bring(dict.fromkeys(batch, 0))
        return [float(ledger.score(i, 0)[0]) for i in batch]

    remembered = ledger.candidates
    found = minimise(method, left, right, evaluate, dict(zip(remembered, evaluate(remembered), strict=True)))
    return Pinpointed(
        best=found.best,
        confirmation=None,
        counts=dict.fromkeys(found.values, effort.budget),
        spent=ledger.spent,
        fixed=fixed_size_cost(left, right, found.best, effort, incumbent),
        rounds=ledger.rounds,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search has come to, before its confirmation."""

    best: int
    """The winner so far."""
    behind: Mapping[int, Difference]
    """The others' scores less its own, as far as the search knows."""
    fixed: int
    """Samples that the ternary search of fixed size would have spent."""
    incumbent: int | None
    """The candidate that stays in doubt."""

    @property
    def rival(self) -> int | None:
        """The incumbent, else the candidate that may be better by most; none when there is only one."""
        if self.incumbent in self.behind:
            return self.incumbent
        return max(self.behind, key=lambda i: could_win_by(self.behind[i]), default=None)


def confirmed(
    answer: Answer, ledger: Ledger[Partial], fresh: Ledger[Partial], *, zone: float = 0.0
) -> Pinpointed:
    """Race the winner on fresh samples with its rival; each takes up to half of the samples that both have.

    The answer is the better one by search and fresh samples together.
    """
    counts, winner, loser = ledger.effort.counts, answer.best, answer.rival
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
    return Pinpointed(
        best=winner,
        confirmation=confirmation,
        counts={i: counts[ledger.level(i)] for i in ledger.candidates},
        spent=ledger.spent + fresh.spent,
        fixed=answer.fixed,
        rounds=ledger.rounds + fresh.rounds,
    )


def fresh_level(level: int) -> int:
    """Return the level of fresh samples that confirms one of the search's: half of the samples."""
    return max(level - 1, 0)


def _beaten(answer: Answer, fresh: Ledger[Partial], rival: int) -> bool:
    """Say whether a rival is better on all samples; an incumbent needs only to be as good."""
    behind = _pooled(answer.behind[rival], fresh.difference(rival, answer.best))
    return behind < 0 or (behind == 0 and rival == answer.incumbent)


def _pooled(*differences: Difference) -> float:
    """Return the mean of estimates of the same difference, weighted by their precision."""
    weights = [1 / max(difference.error**2, 1e-30) for difference in differences]
    means = [difference.mean for difference in differences]
    return sum(map(operator.mul, weights, means)) / sum(weights)
