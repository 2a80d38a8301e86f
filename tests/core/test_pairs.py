"""Pairs of times on one trajectory."""

import pytest
import torch

from cm_ray.core.pairs import distillation_pair, perturb, training_pair
from cm_ray.core.solvers import data_denoiser, euler_step, heun_step
from tests.core.gaussian import Gaussian, normals

X, NOISE = normals(0, 3, 1, 4, 4), normals(1, 3, 1, 4, 4)
T = torch.tensor([80.0, 1.0, 0.3], dtype=torch.float64)
S = torch.tensor([70.0, 0.5, 0.002], dtype=torch.float64)


def test_a_training_pair_is_on_one_line_of_the_same_noise():
    x_t, x_s = training_pair(X, NOISE, T, S)
    torch.testing.assert_close((x_t - X) / T.reshape(-1, 1, 1, 1), NOISE)
    torch.testing.assert_close((x_s - X) / S.reshape(-1, 1, 1, 1), NOISE)


@pytest.mark.parametrize("solver", [euler_step, heun_step])
def test_a_training_pair_is_a_distillation_pair_with_the_data_as_teacher(solver):
    x_t, x_s = training_pair(X, NOISE, T, S)
    again, stepped = distillation_pair(data_denoiser(X), solver, x_t, T, S)
    assert again is x_t
    torch.testing.assert_close(stepped, x_s, rtol=1e-12, atol=1e-12)


def test_the_cleaner_half_of_a_distillation_pair_is_the_mean_of_a_training_pairs():
    """E[x_s | x_t] over the data: Euler's step with the exact denoiser, the heart of theorem 2."""
    data, t, s, x_t = Gaussian(0.3, 0.5), T[1:2], S[1:2], torch.full((1, 1, 1, 1), 0.9, dtype=torch.float64)
    x = torch.linspace(-4, 4.6, 4001, dtype=torch.float64)
    density = torch.exp(-((x - 0.3) ** 2) / (2 * 0.25) - (0.9 - x) ** 2 / 2)
    mean = ((x + s * (0.9 - x) / t) * density).sum() / density.sum()
    _, x_s = distillation_pair(data.denoise, euler_step, x_t, t, s)
    assert float(x_s) == pytest.approx(float(mean), abs=1e-8)


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        perturb(X, NOISE[:1], T)
    with pytest.raises(ValueError, match="shapes differ"):
        training_pair(X, NOISE[:, :, :1], T, S)
    with pytest.raises(ValueError, match="shapes differ"):
        distillation_pair(data_denoiser(X[:1]), euler_step, X, T, S)
