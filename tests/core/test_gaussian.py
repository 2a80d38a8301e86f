"""The closed forms that the other tests lean on, against automatic differentiation and quantiles."""

import numpy as np
import pytest
import torch

from cm_ray.core.types import per_sample
from tests.core.gaussian import Gaussian, Mixture, full, normals, order

TIMES = torch.tensor([0.002, 0.1, 1.0, 80.0], dtype=torch.float64)
X_T = normals(0, 4, 1, 3, 3) * (1 + per_sample(TIMES, torch.zeros(4, 1, 1, 1)))


def gradient(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def tweedie(score):
    """The denoiser that belongs to a score: x_t + t^2 score."""
    return X_T + per_sample(TIMES, X_T) ** 2 * score


def test_the_denoiser_of_a_gaussian_is_tweedies():
    data = Gaussian(0.3, 0.4)
    scale = (data.sigma**2 + per_sample(TIMES, X_T) ** 2).sqrt()
    score = gradient(lambda x: torch.distributions.Normal(data.mean, scale).log_prob(x), X_T)
    torch.testing.assert_close(data.score(X_T, TIMES), score)
    torch.testing.assert_close(data.denoise(X_T, TIMES), tweedie(score))


def test_the_denoiser_of_a_mixture_is_tweedies():
    data = Mixture()
    score = gradient(lambda x: data.log_density(x, TIMES), X_T)
    torch.testing.assert_close(data.denoise(X_T, TIMES), tweedie(score), rtol=1e-9, atol=1e-9)


def test_a_mixture_of_one_is_a_gaussian():
    one, many = Gaussian(0.3, 0.4), Mixture((1.0,), (0.3,), 0.4)
    torch.testing.assert_close(one.denoise(X_T, TIMES), many.denoise(X_T, TIMES))
    x = np.linspace(-1, 1, 5)
    assert many.cdf(x, 0.0)[2] == pytest.approx(0.2266273523768682)  # Phi(-0.75)


@pytest.mark.parametrize("data", [Gaussian(0.3, 0.4), Gaussian(-1.0, 0.0)])
def test_the_flow_solves_the_ode_and_composes(data):
    t, s, r = (full(X_T, time) for time in (3.0, 0.7, 0.1))
    h = 1e-5
    derivative = (data.flow(X_T, t, s + h) - data.flow(X_T, t, s - h)) / (2 * h)
    x_s = data.flow(X_T, t, s)
    torch.testing.assert_close(derivative, (x_s - data.denoise(x_s, s)) / 0.7, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(data.flow(x_s, s, r), data.flow(X_T, t, r))


def test_orders_are_slopes():
    assert order([2, 4, 8, 16], [3 * n**-2 for n in (2, 4, 8, 16)]) == pytest.approx(2)
