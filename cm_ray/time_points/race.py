"""Who is better, with no more samples than that takes: rounds that double while it is open."""

from __future__ import annotations

from collections.abc import Sequence

from cm_ray.time_points.sample_budget import Difference, Ledger, Partial

SIGMAS = 2.0
"""Standard errors by which a difference must differ from 0 to decide."""


def race(
    ledger: Ledger[Partial], candidates: Sequence[int], *, zone: float = 0.0, top: int | None = None
) -> int:
    """Sample candidates until one is better than the others, and return the best.

    Each begins at the first level, or where it is. Those that are within `SIGMAS` standard errors of the
    leader go on to the next level, the leader with them, up to level `top`, else the budget.  zone: a
    difference of scores that does not matter; a candidate leaves that could be better by no more than that.
    """
    ledger.bring(dict.fromkeys(candidates, 0))
    last = len(ledger.effort.counts) - 1 if top is None else top
    while True:
        leader = ledger.leader(candidates)
        in_race = [
            candidate
            for candidate in candidates
            if candidate != leader and could_win_by(ledger.difference(candidate, leader)) > zone
        ]
        level = min(map(ledger.level, [*in_race, leader])) if in_race else last
        if level >= last:
            return leader
        behind = [candidate for candidate in [*in_race, leader] if ledger.level(candidate) == level]
        ledger.bring(dict.fromkeys(behind, level + 1))


def could_win_by(behind: Difference) -> float:
    """Return by how much a candidate may be better than the leader that it seems to be behind."""
    return SIGMAS * behind.error - behind.mean
