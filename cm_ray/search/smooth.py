"""The search by a smooth curve: a few candidates across the valley, with as many samples as its minimum needs.

Where the curve is flat, races of neighbours cost most and matter least; a curve through points on both slopes
tells the minimum from far fewer samples.
"""

from __future__ import annotations

import numpy as np

from cm_ray.search.adaptive import Pinpointed, confirmed
from cm_ray.search.effort import Effort, Ledger, Partial, Scores, fixed_size_cost
from cm_ray.search.integers import spread
from cm_ray.search.race import could_win_by
from cm_ray.search.surrogate import Curve, fitted

VALLEY = 0.35
"""How far up the slopes candidates are put, as a share of the curve's height."""


def smooth(
    left: int,
    right: int,
    scores: Scores[Partial],
    effort: Effort,
    *,
    tolerance: float = 0.005,
    share: float = 0.25,
    probes: int = 7,
    across: int = 5,
) -> Pinpointed:
    """Search left .. right by a smooth curve through all scores: `cm_ray.search.surrogate`.

    It begins with `probes` candidates over all of the range, at the first level. Each round puts `across`
    candidates across the valley of the curve and brings those with fewest samples to their next level. It ends
    when the curve's minimum is expected to be within `tolerance` of the true one, when all have the budget, or
    when samples would exceed the `share` of what the ternary search of fixed size spends. The answer is the
    evaluated candidate that is lowest on the curve.
    """
    ledger: Ledger[Partial] = Ledger(scores, effort)
    ledger.bring(dict.fromkeys(spread(range(left, right + 1), probes), 0))
    normals = np.random.default_rng(0).standard_normal((256, right + 1 - left))
    while (curve := _curve(ledger, left, right)).expected_regret(normals) > tolerance:
        wanted = _next_levels(ledger, curve, left, across)
        cost = sum(ledger.cost(*item) for item in wanted.items())
        limit = share * fixed_size_cost(left, right, left + curve.lowest, effort)
        if not cost or ledger.spent + cost > limit:
            break
        ledger.bring(wanted)
    ledger.bring({left + curve.lowest: max(map(ledger.level, ledger.candidates))})
    curve = _curve(ledger, left, right)
    best = min(ledger.candidates, key=lambda i: curve.mean[i - left])
    behind = {i: curve.difference(i - left, best - left) for i in ledger.candidates if i != best}
    return confirmed(ledger, best, behind, (left, right), zone=4 * tolerance)


def _curve(ledger: Ledger[Partial], left: int, right: int) -> Curve:
    """Return the curve of the differences to the candidate that has most samples."""
    anchor = ledger.foremost(ledger.candidates)
    levels = [(i, ledger.level(i)) for i in ledger.candidates]
    gaps = np.stack([ledger.score(i, level) - ledger.score(anchor, level) for i, level in levels])
    noise = np.cov(gaps[:, 1:]).reshape(len(gaps), len(gaps))
    noise = 0.8 * noise + 0.2 * np.diag(noise.diagonal())  # replicates are few, and their covariances rough
    return fitted(right + 1 - left, np.array(ledger.candidates) - left, gaps[:, 0], noise)


def _next_levels(ledger: Ledger[Partial], curve: Curve, left: int, across: int) -> dict[int, int]:
    """Return candidates across the valley, and the lowest level that one of them has not reached."""
    design = _design(ledger, curve, left, across)
    level = min(map(ledger.level, design)) + 1
    return dict.fromkeys(design, level) if level < len(ledger.effort.counts) else {}


def _design(ledger: Ledger[Partial], curve: Curve, left: int, across: int) -> list[int]:
    """Return about evenly spaced candidates across the valley, those that have samples where they are near."""
    low, high = curve.valley(VALLEY)
    spacing = (high - low) / (across - 1)
    design: dict[int, None] = {}
    for place in np.linspace(left + low, left + high, across):
        near = min(ledger.candidates, key=lambda i: abs(i - place))
        design[near if abs(near - place) < spacing / 2 else round(float(place))] = None
    return list(design)
