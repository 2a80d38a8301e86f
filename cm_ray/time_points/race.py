"""Find the best of several candidates with few samples: rounds that double until the best one is clear."""

from __future__ import annotations

from collections.abc import Sequence

from cm_ray.time_points.sample_budget import Difference, Ledger, Partial

SIGMAS = 2.0
"""Number of standard errors by which a difference must be away from 0 to decide."""


def race(
    ledger: Ledger[Partial], candidates: Sequence[int], *, zone: float = 0.0, top: int | None = None
) -> int:
    """Sample candidates until one of them is better than the others, and return it.

    Every candidate starts at the first level, or at the level that it has. In each round the leader and those
    candidates within `SIGMAS` standard errors of it go to the next level, up to level `top` (None: the full
    budget).  zone: difference of scores that does not matter; a candidate that can win by no more drops out.
    """
    ledger.bring(dict.fromkeys(candidates, 0))
    last = len(ledger.budget.counts) - 1 if top is None else top
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
    """Return by how much a candidate may be better than the leader, at the upper end of the uncertainty."""
    return SIGMAS * behind.error - behind.mean
