"""FD-infinity: its value, and an error that is the spread of repeated experiments and costs no distance."""

import numpy as np
import pytest
import torch

from cm_ray.core.noise import derived_seed
from cm_ray.errors import UserError
from cm_ray.metrics import frechet
from cm_ray.metrics.extrapolation import frechet_infinity
from cm_ray.metrics.frechet import FrechetReference
from cm_ray.metrics.statistics import FeatureStatistics


def features(n, d=6, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def standard_normal(d):
    """N(0, I) itself, as a reference."""
    n = 10**9
    return FrechetReference.of(FeatureStatistics(n, np.zeros(d), (n - 1) * np.eye(d)))


def test_it_is_the_fits_value_at_zero():
    x, reference = features(300, 4, shift=0.2), standard_normal(4)
    rng = np.random.default_rng(derived_seed(3, "FD-infinity"))
    sizes = np.linspace(30, 300, 15).round().astype(int)
    values = [reference.distance(FeatureStatistics.of(x[rng.permutation(300)[:size]])) for size in sizes]
    measured = frechet_infinity(x, reference, seed=3)
    assert measured.value == pytest.approx(np.polyfit(1 / sizes, values, 1)[1], rel=1e-8)
    assert measured.settings == {"points": 15, "subset_seed": 3}


def test_it_is_nearer_to_the_truth():
    """N(0, I) to itself in d dimensions: 0. That of n samples is too great by some d^2 / 4n."""
    d = 20
    reference, of_n, of_infinitely_many = standard_normal(d), [], []
    for seed in range(5):
        x = features(1000, d, seed=seed)
        of_n.append(reference.distance(FeatureStatistics.of(x)))
        of_infinitely_many.append(frechet_infinity(x, reference, points=8).value)
    assert np.mean(of_n) > d**2 / 4000
    assert abs(np.mean(of_infinitely_many)) < np.mean(of_n) / 5


@pytest.mark.parametrize(
    ("n", "d", "shift", "factor"),
    [(500, 4, 0.5, 1), (1000, 16, 0.2, 1), (1000, 16, 0.0, 2**0.5)],  # at the minimum see the jackknife
)
def test_the_error_is_that_of_repeated_experiments(n, d, shift, factor):
    reference = standard_normal(d)
    repeated = [frechet_infinity(features(n, d, seed, shift), reference) for seed in range(100)]
    spread = np.std([each.value for each in repeated], ddof=1)
    assert np.mean([each.error for each in repeated]) == pytest.approx(factor * spread, rel=0.25)


def test_the_error_costs_no_distance(monkeypatch):
    calls, spectrum = [], frechet._positive_spectrum

    def counted(a):
        calls.append(a.shape)
        return spectrum(a)

    reference = standard_normal(4)
    monkeypatch.setattr(frechet, "_positive_spectrum", counted)
    frechet_infinity(features(200, 4), reference, points=7)
    assert len(calls) == 7


def test_too_few_samples_are_refused():
    for n in (60, 69):
        with pytest.raises(
            UserError, match=f"{n} samples are not more than 10 x 6 features; take 70 or more"
        ):
            frechet_infinity(features(n), standard_normal(6))
    assert frechet_infinity(features(70), standard_normal(6)).error > 0
