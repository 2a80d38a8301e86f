"""The simulated curves are as noisy as they say, and adaptive searches meet their target on them."""

import numpy as np
import pytest

from cm_ray.time_points.integer_search import fibonacci, ternary
from cm_ray.time_points.racing import fixed_size, raced
from cm_ray.time_points.sample_budget import Ledger, SampleBudget, SampleRange
from cm_ray.time_points.simulated import PUBLISHED, NoisyCurve, published_curve
from cm_ray.time_points.smooth import smooth

every_shape = pytest.mark.parametrize("name", PUBLISHED)


@every_shape
@pytest.mark.parametrize("seed", range(5))
def test_a_curve_is_a_valley_at_the_published_place(name, seed):
    shape, curve = PUBLISHED[name], published_curve(name, np.random.default_rng(seed))
    lowest = int(curve.argmin())
    assert abs(lowest - shape.at) <= 0.03 * shape.size + 1
    assert curve.shape == (shape.size,)
    assert (np.diff(curve[: lowest + 1]) < 0).all()
    assert (np.diff(curve[lowest:]) > 0).all()
    assert shape.two_steps <= curve.min() < curve.max() <= shape.one_step


def noisy(seed, deviation=0.04):
    rng = np.random.default_rng(seed)
    return NoisyCurve(published_curve("imagenet64_cd", rng), rng, deviation=deviation)


def scored(scores, candidate, count):
    return scores.score(scores.sample([SampleRange(candidate, 0, count)])[0])


@pytest.mark.parametrize(("count", "expected"), [(10_000, 0.04), (2500, 0.08)])
def test_a_score_has_the_said_deviation_and_bias_and_falls_with_the_root(count, expected):
    scores = [noisy(seed) for seed in range(300)]
    errors = [scored(each, 20, count)[0] - each.curve[20] - each.bias / count for each in scores]
    assert np.std(errors) == pytest.approx(expected, rel=0.15)
    assert abs(np.mean(errors)) < 4 * expected / 300**0.5


def test_noise_is_paired_and_neighbours_share_most():
    scores = [noisy(seed) for seed in range(200)]
    errors = np.array([[scored(each, i, 10_000)[0] - each.curve[i] for i in (20, 21, 35)] for each in scores])
    near, far = (np.std(errors[:, i] - errors[:, 0]) for i in (1, 2))
    assert 0.008 < near < 0.02 < far < 0.04


def test_the_bootstrap_error_of_a_paired_difference_is_that_of_repetition():
    gaps, errors = [], []
    for seed in range(200):
        each = noisy(seed)
        ledger = Ledger(each, SampleBudget())
        ledger.bring({20: 1, 25: 1})
        mean, error = ledger.difference(25, 20)
        gaps.append(mean - each.curve[25] + each.curve[20])
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(gaps), rel=0.15)


SEARCHES = {
    "smooth": lambda *of: smooth(*of),
    "raced": lambda *of: raced(fibonacci, *of),
    "fixed": lambda *of: fixed_size(ternary, *of),
}


def trials(names, search, count=16):
    """Samples and regret of searches of curves, the same for every search."""
    rows = []
    for name in names:
        for seed in range(count):
            rng = np.random.default_rng([seed, PUBLISHED[name].at])
            curve = published_curve(name, rng)
            scores = NoisyCurve(curve, rng, deviation=rng.uniform(0.03, 0.05))
            found = SEARCHES[search](1, len(curve) - 2, scores, SampleBudget())
            assert found.spent == sum(request.count for request in scores.ranges)
            rows.append((found.spent, curve[found.best] - curve[1:-1].min()))
    return np.array(rows)


@pytest.mark.parametrize("search", ["smooth", "raced"])
def test_adaptive_searches_spend_a_quarter_of_openais_samples_and_are_as_good(search):
    """Over all published shapes; 0.005 FID is the target, and what 96 curves tell is right to 0.001."""
    openai, found = trials(PUBLISHED, "fixed"), trials(PUBLISHED, search)
    assert found[:, 0].sum() <= 0.25 * openai[:, 0].sum()
    assert (found[:, 1] - openai[:, 1]).mean() <= 0.005


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(size, marks=() if size < 100 else pytest.mark.exhaustive)  # the test before has them all
        for size in sorted({shape.size for shape in PUBLISHED.values()})
    ],
)
def test_the_smooth_search_does_so_on_each_grid(size):
    names = [name for name, shape in PUBLISHED.items() if shape.size == size]
    openai, found = (trials(names, search, 96 // len(names)) for search in ("fixed", "smooth"))
    assert found[:, 0].sum() <= 0.25 * openai[:, 0].sum()
    assert (found[:, 1] - openai[:, 1]).mean() <= 0.005
