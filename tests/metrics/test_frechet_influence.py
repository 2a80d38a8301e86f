"""Influences on the Fréchet distance: derivatives, sums, and errors that are those of the bootstrap."""

import numpy as np
import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics import frechet
from cm_ray.metrics.estimate import repeated, standard_error
from cm_ray.metrics.frechet import FrechetReference, frechet_influence
from cm_ray.metrics.statistics import FeatureStatistics


def features(n, d=5, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@pytest.fixture
def reference():
    mixing = features(5, 5, seed=7)
    return FrechetReference.of(FeatureStatistics.of(features(400, seed=8) @ mixing))


def weighted_distance(x, shares, reference):
    """The distance of samples with these shares of the whole, in the covariance's unbiased form."""
    n, x = len(x), x.numpy()
    mean = shares @ x
    covariance = n / (n - 1) * ((x * shares[:, None]).T @ x - np.outer(mean, mean))
    outer = (n - 1) * covariance + n * np.outer(mean, mean)
    return reference.distance(FeatureStatistics(n, n * mean, outer))


@pytest.mark.parametrize("d", [1, 5])
def test_it_is_the_derivative_when_a_samples_share_grows(d):
    reference = FrechetReference.of(FeatureStatistics.of(features(300, d, seed=8) @ features(d, d, seed=7)))
    x, step = features(40, d, shift=0.4), 1e-5
    _, influence = frechet_influence(x, reference)
    for i in range(0, 40, 3):
        moved = []
        for grown in (step, -step):
            shares = np.full(40, (1 - grown) / 40)
            shares[i] += grown
            moved.append(weighted_distance(x, shares, reference))
        assert influence[i] == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-5, abs=1e-6)


def test_the_value_is_the_distance_and_influences_add_up_to_nothing(reference):
    x = features(200, shift=0.3)
    value, influence = frechet_influence(x, reference)
    assert value == pytest.approx(reference.distance(FeatureStatistics.of(x)), rel=1e-12)
    assert (influence.shape, influence.dtype) == ((200,), np.float64)
    assert abs(influence.sum()) < 1e-10 * np.abs(influence).sum()
    assert influence.std() > 0.1


def test_chunks_change_nothing(reference, monkeypatch):
    x = features(50)
    value, influence = frechet_influence(x, reference)
    monkeypatch.setattr(frechet, "_ROWS", 7)
    chunked_value, chunked = frechet_influence(x, reference)
    assert chunked_value == value
    np.testing.assert_allclose(chunked, influence, rtol=1e-12, atol=1e-12)


def bootstrap(statistic, n):
    return standard_error(statistic, n, replicates=500)  # right to 3 %


def test_their_deviation_is_the_bootstraps_error(reference):
    x = features(1000, shift=0.3)
    _, influence = frechet_influence(x, reference)
    expected = bootstrap(lambda k: reference.distance(FeatureStatistics.of(repeated(x, k))), 1000)
    assert influence.std() / 1000**0.5 == pytest.approx(expected, rel=0.12)


def test_the_deviation_of_their_differences_is_the_paired_bootstraps_error(reference):
    noise = features(1000, shift=0.3)
    a, b = noise, noise @ (torch.eye(5).double() + 0.05 * features(5, 5, seed=3)) + 0.02
    influence_a, influence_b = (frechet_influence(x, reference)[1] for x in (a, b))

    def difference(counts):
        x, y = (reference.distance(FeatureStatistics.of(repeated(each, counts))) for each in (a, b))
        return x - y

    paired = (influence_a - influence_b).std() / 1000**0.5
    assert paired == pytest.approx(bootstrap(difference, 1000), rel=0.12)
    unpaired = np.hypot(influence_a.std(), influence_b.std()) / 1000**0.5
    assert paired < unpaired / 3


@pytest.mark.parametrize("n", [2, 12])
def test_fewer_samples_than_features_have_derivatives_too(n):
    d, step = 30, 1e-5
    reference = FrechetReference.of(FeatureStatistics.of(features(100, d, seed=8)))
    x = features(n, d, shift=0.2)
    value, influence = frechet_influence(x, reference)
    assert value == pytest.approx(reference.distance(FeatureStatistics.of(x)), rel=1e-10)
    assert abs(influence.sum()) < 1e-9 * np.abs(influence).sum()
    shares = [np.full(n, (1 - grown) / n) + grown * np.eye(n)[0] for grown in (step, -step)]
    there, back = (weighted_distance(x, each, reference) for each in shares)
    assert influence[0] == pytest.approx((there - back) / (2 * step), rel=1e-5)


def test_a_constant_set_and_a_constant_reference_are_finite(reference):
    value, influence = frechet_influence(torch.ones(9, 5), reference)
    assert value > 0
    np.testing.assert_allclose(influence, 0, atol=1e-12)
    point = FrechetReference.of(FeatureStatistics.of(torch.zeros(9, 5)))
    x = features(50, shift=1)
    gap, centred = x.mean(0), x - x.mean(0)
    moved = 50 / 49 * centred.square().sum(1)
    expected = 2 * centred @ gap + moved - moved.mean()
    np.testing.assert_allclose(frechet_influence(x, point)[1], expected, rtol=1e-10, atol=1e-10)


def test_what_is_no_set_of_features_is_refused(reference):
    with pytest.raises(ValueError, match="features of 5 and 4 numbers cannot be compared"):
        frechet_influence(features(20, 4), reference)
    with pytest.raises(ValueError, match=r"features must be \(n, d\)"):
        frechet_influence(torch.zeros(5, 5, 1), reference)
    with pytest.raises(ValueError, match="not finite"):
        frechet_influence(torch.full((3, 5), float("nan")), reference)
    with pytest.raises(UserError, match="at least 2 images"):
        frechet_influence(features(1), reference)
