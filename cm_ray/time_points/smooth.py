"""Search by a smooth curve: sample a few candidates across the valley, as much as locating the minimum needs.

Where the curve is flat, races between neighbours cost most and matter least. A curve through points on both
slopes locates the minimum with far fewer samples.
"""

from __future__ import annotations

import numpy as np

from cm_ray.time_points.integer_search import check_range, spread
from cm_ray.time_points.racing import PointResult, Unconfirmed, confirmed, fresh_level
from cm_ray.time_points.sample_budget import (
    CandidateScorer,
    Ledger,
    Partial,
    SampleBudget,
    SearchHistory,
    fixed_size_cost,
)
from cm_ray.time_points.surrogate import Curve, fitted

TOLERANCE = 0.002
"""Expected distance from the minimum at which a search ends: less than half of a regret of 0.005 FID."""
VALLEY = 0.25
"""Height on the slopes up to which candidates are placed, as a share of the curve's height."""
PROBES = 5
"""Number of candidates over the whole range at the start."""
ACROSS = (5, 3)
"""Number of candidates across the valley per round; the smaller one is used when samples are short."""
SHARE = 0.25
"""Limit on the samples of a search, as a share of those of the ternary search of fixed size.

One last candidate at the highest level may exceed it, and so may a first level that is itself too high.
"""


def smooth(
    left: int,
    right: int,
    scorer: CandidateScorer[Partial],
    budget: SampleBudget,
    *,
    tolerance: float = TOLERANCE,
    incumbent: int | None = None,
    history: SearchHistory[Partial] | None = None,
) -> PointResult:
    """Search left .. right by a smooth curve through all scores; see `cm_ray.time_points.surrogate`.

    The search starts with `PROBES` candidates at the first level. Each round chooses `ACROSS` candidates over
    the valley of the curve and brings those with fewest samples to the next level. It ends when the minimum
    of the curve is expected to be within `tolerance`, in the unit of the score, of the true one, when all
    candidates have the full budget, or at the limit `SHARE`. The result is the sampled candidate that is
    lowest on the curve. incumbent: a candidate from the history that stays unless another one is better on
    all samples.  Raises ValueError when there is no candidate.
    """
    check_range(left, right)
    history = history or SearchHistory()
    ledger = Ledger(scorer, budget, history.search)
    ledger.bring(dict.fromkeys(spread(range(left, right + 1), PROBES), 0))
    normals = np.random.default_rng(0).standard_normal((256, right + 1 - left))
    while True:
        curve = _curve(ledger, left, right)
        limit = SHARE * fixed_size_cost(left, right, left + curve.lowest, budget, incumbent)
        wanted = {}
        if curve.expected_regret(normals) > tolerance:
            wanted = _affordable(ledger, curve, left, limit)
        wanted = wanted or _unseen(ledger, left + curve.lowest, incumbent)
        if not wanted or ledger.spent > limit:
            break
        ledger.bring(wanted)
    best = min(ledger.candidates, key=lambda i: (ledger.failed(i), curve.mean[i - left]))
    others = [i for i in ledger.candidates if i != best and not ledger.failed(i)]
    behind = {i: curve.difference(i - left, best - left) for i in others}
    answer = Unconfirmed(best, behind, fixed_size_cost(left, right, best, budget, incumbent), incumbent)
    fresh = Ledger(scorer, budget, history.fresh, start=budget.full)
    return confirmed(answer, ledger, fresh, zone=4 * tolerance)


def _curve(ledger: Ledger[Partial], left: int, right: int) -> Curve:
    """Return the curve of the differences to the candidate with most samples.

    A failed candidate counts as far above all others: it has no score, and its neighbours must not look good.
    """
    anchor, failed = ledger.foremost(ledger.candidates), [i for i in ledger.candidates if ledger.failed(i)]
    levels = {i: ledger.level(i) for i in ledger.candidates if i not in failed}
    if not levels:
        return Curve(np.zeros(right + 1 - left), np.zeros((right + 1 - left,) * 2))
    gaps = np.stack([ledger.score(i, level) - ledger.score(anchor, level) for i, level in levels.items()])
    noise = np.cov(gaps[:, 1:]).reshape(len(gaps), len(gaps))
    noise = 0.8 * noise + 0.2 * np.diag(noise.diagonal())  # covariances of few replicates are inexact
    above = gaps[:, 0].max() + (np.ptp(gaps[:, 0]) or 1.0)
    values = np.append(gaps[:, 0], [above] * len(failed))
    noise = np.pad(noise, (0, len(failed)))
    return fitted(right + 1 - left, np.array([*levels, *failed]) - left, values, noise)


def _unseen(ledger: Ledger[Partial], lowest: int, incumbent: int | None) -> dict[int, int]:
    """Return the curve.s lowest place at the highest level, unless it is there: it may be a bad guess.

    The level of the incumbent does not count, since it is from another search.
    """
    highest = max((ledger.level(i) for i in ledger.candidates if i != incumbent), default=0)
    failed = lowest in ledger.candidates and ledger.failed(lowest)
    return {} if failed or ledger.level(lowest) >= highest else {lowest: highest}


def _affordable(ledger: Ledger[Partial], curve: Curve, left: int, limit: float) -> dict[int, int]:
    """Return candidates across the valley and their next level; fewer where many would exceed the limit.

    The samples that the confirmation may take count as well.
    """
    counts = ledger.budget.counts
    for across in ACROSS:
        design = _design(ledger, curve, left, across)
        level = min(map(ledger.level, design), default=len(counts)) + 1
        if level < len(counts):
            wanted = dict.fromkeys(design, level)
            highest = max(level, *map(ledger.level, ledger.candidates))
            if ledger.spent + ledger.cost(wanted) + 2 * counts[fresh_level(highest)] <= limit:
                return wanted
    return {}


def _design(ledger: Ledger[Partial], curve: Curve, left: int, across: int) -> list[int]:
    """Return about evenly spaced candidates across the valley; prefer those that have samples."""
    low, high = curve.valley(VALLEY)
    spacing = (high - low) / (across - 1)
    design: dict[int, None] = {}
    for place in np.linspace(left + low, left + high, across):
        near = min(ledger.candidates, key=lambda i: abs(i - place))
        design[near if abs(near - place) < spacing / 2 else round(float(place))] = None
    return [i for i in design if i not in ledger.candidates or not ledger.failed(i)]
