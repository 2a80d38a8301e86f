"""Likelihoods and latents against closed forms: Gaussians with any covariance, and mixtures."""

import math

import pytest
import torch

from cm_ray.core.likelihood import BINS, bits_per_dim, decode, dequantised, encode, log_density
from cm_ray.core.noise import Purpose, uniform
from cm_ray.core.ode import Tolerance
from cm_ray.core.times import NoiseLevels
from tests.core.gaussian import Gaussian, Mixture, normals

LEVELS = NoiseLevels()
TIGHT = Tolerance(rtol=1e-8, atol=1e-10)
SHAPE = (1, 2, 3)
SIX_LEVELS = 1e-5 * 6 * math.log(2)
"""1e-5 bits per dimension of six, in nats."""


def normal_density(x, variance):
    """Return ln N(x; 0, variance) summed over all pixels (b,)."""
    flat = x.flatten(1)
    return -0.5 * (flat.square() / variance + math.log(2 * math.pi * variance)).sum(1)


def rows_of(denoise):
    return lambda x_t, t, rows: denoise(x_t, t)


def gaussian_density(law, x):
    """Return ln p(x) of the model in closed form: noise of t_max that flows linearly to t_min (b,)."""
    spread = (law.sigma**2 + LEVELS.t_max**2) / (law.sigma**2 + LEVELS.t_min**2)
    latent = law.mean + (x - law.mean) * math.sqrt(spread)
    return normal_density(latent, LEVELS.t_max**2) + 0.5 * x[0].numel() * math.log(spread), latent


@pytest.mark.parametrize("law", [Gaussian(), Gaussian(0.3, 0.05), Gaussian(-1.0, 2.0)])
def test_the_density_of_a_gaussian_is_exact(law):
    x = law.draw(1, 5, *SHAPE)
    found = log_density(rows_of(law.denoise), x, LEVELS, tolerance=TIGHT)
    expected, latent = gaussian_density(law, x)
    torch.testing.assert_close(found.log_density, expected, rtol=0, atol=SIX_LEVELS)
    torch.testing.assert_close(found.latent, latent / LEVELS.t_max, rtol=0, atol=1e-6)


def correlated():
    """Return a covariance (6, 6) and the denoiser of N(0, covariance)."""
    root = 0.3 * normals(3, 6, 6)
    covariance = root @ root.T + 0.01 * torch.eye(6, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance)

    def denoise(x_t, t):
        gain = values / (values + t[:, None] ** 2)
        return ((x_t.flatten(1) @ vectors) * gain @ vectors.T).reshape(x_t.shape)

    return covariance, denoise


def test_the_trace_sees_correlations_between_pixels():
    covariance, denoise = correlated()
    x = (normals(4, 5, 6) @ torch.linalg.cholesky(covariance).T).reshape(5, *SHAPE)
    found = log_density(rows_of(denoise), x, LEVELS, tolerance=TIGHT).log_density
    smooth = covariance + LEVELS.t_min**2 * torch.eye(6, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), smooth)
    # The density at t_max is taken as N(0, t_max^2): off by about sigma^2/t_max^2 per dimension.
    torch.testing.assert_close(found, law.log_prob(x.flatten(1)), rtol=0, atol=2e-3)
    flat, ends = x.flatten(1), torch.linalg.eigvalsh(covariance)
    assert (found - normal_density(x, float(flat.var()))).abs().max() > 0.1, "correlations must matter"
    assert len(ends) == 6


def test_the_density_of_a_mixture_is_exact():
    law, levels = Mixture(), NoiseLevels(t_max=1e5)
    x = torch.linspace(-1.2, 1.0, 8, dtype=torch.float64).reshape(8, 1, 1, 1)
    found = log_density(rows_of(law.denoise), x, levels, tolerance=TIGHT).log_density
    expected = law.log_density(x, torch.full((8,), levels.t_min, dtype=torch.float64)).flatten()
    expected = expected - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * math.log(2))


def test_hutchinsons_estimate_has_the_exact_mean_and_falls_with_probes():
    _, denoise = correlated()
    x = 0.3 * normals(5, 1, *SHAPE).expand(400, *SHAPE)
    exact = log_density(rows_of(denoise), x[:1], LEVELS).log_density
    spreads = []
    for count in (1, 4):
        generator = torch.Generator().manual_seed(count)
        signs = torch.randint(0, 2, (400, count, *SHAPE), generator=generator).double() * 2 - 1
        found = log_density(rows_of(denoise), x, LEVELS, probes=signs).log_density
        error = found.std() / math.sqrt(400)
        assert (found.mean() - exact).abs() < 4 * error + 1e-4
        spreads.append(float(found.std()))
    assert 1.7 < spreads[0] / spreads[1] < 2.3


def test_signs_are_exact_where_pixels_do_not_depend_on_each_other():
    law = Gaussian(0.1, 0.4)
    x = law.draw(2, 3, *SHAPE)
    signs = torch.where(normals(6, 3, 1, *SHAPE) > 0, 1.0, -1.0)
    one, all_ = (log_density(rows_of(law.denoise), x, LEVELS, probes=p).log_density for p in (signs, None))
    torch.testing.assert_close(one, all_, rtol=0, atol=1e-9)


def test_encoding_and_decoding_are_inverse():
    law = Mixture()
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 1, 1, 3)
    latent, _ = encode(rows_of(law.denoise), x, LEVELS)
    back, _ = decode(rows_of(law.denoise), latent, LEVELS)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-4)
    assert latent.std() > 0.3


def test_decoded_noise_has_the_distribution_of_the_data():
    law = Gaussian(0.2, 0.5)
    images, _ = decode(rows_of(law.denoise), normals(7, 500, 1, 2, 2), LEVELS)
    assert law.p_value(images) > 0.01
    assert Gaussian(0.25, 0.5).p_value(images) < 0.01


def test_a_label_belongs_to_its_row_when_others_have_arrived():
    """Samples of very different stiffness arrive at different times; the rows must keep their own means."""
    means = torch.tensor([0.9, -0.9, 0.0], dtype=torch.float64)
    sigmas = torch.tensor([1e-3, 0.5, 5.0], dtype=torch.float64)

    def denoise(x_t, t, rows):
        gain = (sigmas[rows] ** 2 / (sigmas[rows] ** 2 + t**2)).reshape(-1, 1, 1, 1)
        return gain * x_t + (1 - gain) * means[rows].reshape(-1, 1, 1, 1)

    x = means.reshape(3, 1, 1, 1).expand(3, *SHAPE)
    found = log_density(denoise, x, LEVELS, tolerance=TIGHT)
    assert len(set(found.evaluations.tolist())) > 1
    for row in range(3):
        law = Gaussian(float(means[row]), float(sigmas[row]))
        expected, _ = gaussian_density(law, x[row : row + 1])
        torch.testing.assert_close(found.log_density[row : row + 1], expected, rtol=0, atol=1e-4)


def test_bits_of_uniform_pixels_are_eight():
    """A density that is constant over all 256 bins gives every image 2^-8 per pixel."""
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    noise = uniform(0, 0, torch.arange(1), Purpose.DEQUANTISATION, (1, 16, 16))
    x = dequantised(pixels, noise)
    low, high = -1 - 0.5 / BINS, 1 + 0.5 / BINS
    assert (x > low).all()
    assert (x < high).all()
    assert torch.equal(((x + 1) * BINS).round().to(torch.uint8), pixels)
    constant = torch.tensor([-256 * math.log(high - low)], dtype=torch.float64)
    torch.testing.assert_close(bits_per_dim(constant, 256), torch.tensor([8.0], dtype=torch.float64))
