"""The curve is the Gaussian process of the textbook, checked against scikit-learn's."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from cm_ray.time_points.surrogate import HEIGHTS, LENGTHS, ROUGHNESS, Curve, fitted


def measured(seed, size=30, k=9, deviation=0.05):
    """Places, noisy values of a valley there, and the noise's variance."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(size, k, replace=False))
    values = 1 - np.exp(-(((places / (size - 1) - 0.4) / 0.15) ** 2) / 2)
    variances = deviation**2 * rng.uniform(0.5, 2, k)
    return places, values + rng.standard_normal(k) * np.sqrt(variances), variances


def oracles(size, places, values, variances):
    """Scikit-learn's processes, of every kernel that there is to choose from."""
    spread = values.std()
    for rough, length, height in itertools.product(ROUGHNESS, LENGTHS, HEIGHTS):
        constant = ConstantKernel((height * spread) ** 2)
        kernel = constant * (RBF(length) + ConstantKernel(100.0))
        if rough:  # 1 at the same place, 0 elsewhere
            kernel = kernel + ConstantKernel((rough * spread) ** 2) * RBF(1e-5)
        alpha = variances + (1e-3 * spread) ** 2
        process = GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None)
        yield process.fit(places[:, None] / (size - 1), values - values.mean())


@pytest.mark.parametrize("seed", range(12))
def test_the_curve_is_scikit_learns_of_the_likeliest_kernel(seed):
    places, values, variances = measured(seed)
    processes = list(oracles(30, places, values, variances))
    likeliest = max(processes, key=lambda process: process.log_marginal_likelihood_value_)
    mean, covariance = likeliest.predict(np.linspace(0, 1, 30)[:, None], return_cov=True)
    curve = fitted(30, places, values, np.diag(variances))
    np.testing.assert_allclose(curve.mean, mean + values.mean(), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(curve.covariance, covariance, rtol=1e-4, atol=1e-7)
    assert curve.lowest == mean.argmin()


@given(st.integers(0, 10**6), st.floats(-100, 100), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_the_curve_moves_and_stretches_with_the_scores(seed, shift, scale):
    places, values, variances = measured(seed)
    plain = fitted(30, places, values, np.diag(variances))
    moved = fitted(30, places, shift + scale * values, np.diag(scale**2 * variances))
    np.testing.assert_allclose(moved.mean, shift + scale * plain.mean, rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(moved.covariance, scale**2 * plain.covariance, atol=1e-4 * scale**2)


def test_a_curve_without_noise_goes_through_its_points():
    places, values, _ = measured(3, deviation=0.0)
    curve = fitted(30, places, values, np.zeros((9, 9)))
    np.testing.assert_allclose(curve.mean[places], values, atol=5e-3)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_smallest_curves(size):
    curve = fitted(size, np.arange(size), np.arange(size) * 1.0, np.zeros((size, size)))
    assert curve.lowest == 0
    assert curve.mean.shape == (size,)
    assert curve.valley(0.5)[0] == 0


def test_equal_scores_make_a_flat_curve():
    curve = fitted(9, np.array([0, 4, 8]), np.ones(3), np.zeros((3, 3)))
    np.testing.assert_allclose(curve.mean, 1)
    assert curve.expected_regret(np.random.default_rng(0).standard_normal((64, 9))) < 1e-9


def test_the_expected_regret_is_that_of_curves_drawn_from_the_process():
    places, values, variances = measured(5, deviation=0.2)
    curve = fitted(30, places, values, np.diag(variances))
    expected = curve.expected_regret(np.random.default_rng(0).standard_normal((40_000, 30)))
    curves = np.random.default_rng(1).multivariate_normal(curve.mean, curve.covariance, 40_000)
    regrets = curves[:, curve.lowest] - curves.min(1)
    assert expected == pytest.approx(regrets.mean(), rel=0.03)
    assert expected > 0.01


def test_the_difference_of_two_places_is_that_of_the_joint_distribution():
    curve = Curve(np.array([1.0, 3.0]), np.array([[2.0, 0.5], [0.5, 1.0]]))
    assert curve.difference(1, 0) == pytest.approx((2.0, 2.0**0.5))
    assert curve.difference(1, 1) == (0.0, 0.0)


def test_the_valley_is_what_lies_low_around_the_lowest_place():
    curve = Curve(np.array([0.2, 9, 2, 1, 0, 1, 9, 9, 10.0]), np.zeros((9, 9)))
    assert curve.valley(0.25) == (2, 5)
    assert curve.valley(0.15) == (3, 5)
    assert curve.valley(1.0) == (0, 8)


def test_a_rough_curve_keeps_its_own_lowest_point():
    """A model that is far better at one time point than beside it: a smooth curve would not believe it."""
    places = np.arange(12)
    values = ((places - 4) / 8) ** 2 + 0.3 * (-1.0) ** places * (places > 0)
    values[7] = -0.5
    curve = fitted(12, places, values, np.eye(12) * 1e-6)
    assert curve.lowest == 7
    np.testing.assert_allclose(curve.mean, values, atol=0.02)
    beside = fitted(12, np.delete(places, 6), np.delete(values, 6), np.eye(11) * 1e-6)
    assert beside.covariance[6, 6] > 100 * beside.covariance[7, 7], "what was not measured may be anywhere"
