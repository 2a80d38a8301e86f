"""Who is better, with no more samples than that takes: rounds that double while it is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cm_ray.search.effort import Difference, Ledger, Partial

SIGMAS = 2.0
"""Standard errors by which a difference must differ from 0 to decide."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a race."""

    leader: int
    """The best."""
    open: tuple[int, ...]
    """Candidates that the budget did not tell from the leader."""


def race(ledger: Ledger[Partial], candidates: Sequence[int], *, zone: float = 0.0) -> Outcome:
    """Sample candidates until one is better than the others, or the budget is reached.

    Each begins at the first level, or where it is. Those that are within `SIGMAS` standard errors of the
    leader go on to the next level, the leader with them. zone: a difference of scores that does not matter;
    a candidate leaves when it could be better by no more than that.
    """
    ledger.bring(dict.fromkeys(candidates, 0))
    top = len(ledger.effort.counts) - 1
    while True:
        leader = ledger.leader(candidates)
        contested = tuple(
            candidate
            for candidate in candidates
            if candidate != leader and could_win_by(ledger.difference(candidate, leader)) > zone
        )
        in_race = [*contested, leader] if contested else []
        level = min((ledger.level(candidate) for candidate in in_race), default=top)
        if level == top:
            return Outcome(leader, contested)
        ledger.bring({candidate: level + 1 for candidate in in_race if ledger.level(candidate) == level})


def could_win_by(behind: Difference) -> float:
    """Return by how much a candidate may be better than the leader that it seems to be behind."""
    return SIGMAS * behind.error - behind.mean
