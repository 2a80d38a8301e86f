"""The Fréchet distance against closed forms and a general matrix root."""

import numpy as np
import pytest
import scipy.linalg

from cm_ray.metrics.frechet import covariance_factor, frechet_distance
from cm_ray.metrics.statistics import FeatureStatistics


def gaussian(mean, covariance, n=100):
    """Statistics with exactly these moments."""
    mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
    return FeatureStatistics(n, n * mean, (n - 1) * covariance + n * np.outer(mean, mean))


def random_covariance(rng, d, rank):
    factor = rng.standard_normal((d, rank))
    return factor @ factor.T / rank


@pytest.mark.parametrize("d", [1, 3, 20])
def test_equals_the_form_with_a_general_matrix_root(d):
    rng = np.random.default_rng(d)
    (mean_a, cov_a), (mean_b, cov_b) = (
        (rng.standard_normal(d), random_covariance(rng, d, 2 * d)) for _ in range(2)
    )
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    distance = frechet_distance(gaussian(mean_a, cov_a), gaussian(mean_b, cov_b))
    assert distance == pytest.approx(expected, rel=1e-9)


def test_equals_the_closed_form_of_commuting_gaussians():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    s, r = rng.uniform(0.1, 4, 6), rng.uniform(0.1, 4, 6)
    a = gaussian(np.zeros(6), basis * s**2 @ basis.T)
    b = gaussian(np.full(6, 0.5), basis * r**2 @ basis.T)
    assert frechet_distance(a, b) == pytest.approx(6 * 0.25 + ((s - r) ** 2).sum(), rel=1e-10)


@pytest.mark.parametrize("rank", [2, 30])
def test_zero_to_itself_never_negative_and_symmetric(rank):
    rng = np.random.default_rng(1)
    a, b = (gaussian(rng.standard_normal(30), random_covariance(rng, 30, rank)) for _ in range(2))
    assert 0 <= frechet_distance(a, a) < 1e-9
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, b) > 0


def test_constant_features_have_only_means():
    nothing = np.zeros((2, 2))
    assert covariance_factor(nothing).shape == (2, 0)
    assert frechet_distance(gaussian([0, 0], nothing), gaussian([3, 4], nothing)) == pytest.approx(25)


def test_features_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        frechet_distance(gaussian([0], [[1]]), gaussian([0, 0], np.eye(2)))
