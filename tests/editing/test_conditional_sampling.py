"""Known parts in samplers of scores: laws of Gaussian data in closed form, the papers' steps by hand."""

import itertools
import math

import pytest
import torch
from scipy import stats

from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import per_sample
from cm_ray.editing.replacement import colorization, conditional, inpainting, super_resolution
from cm_ray.sampling.score_samplers import Langevin, PredictorCorrector
from tests.core.gaussian import Gaussian, full, normals

LEVELS = NoiseLevels(t_min=0.01, t_max=5.0)
MEAN, SIGMA, CORRELATION = 0.1, 0.2, 0.8


def paired(x_t, t):
    """The denoiser of Gaussian images whose left and right halves are correlated, pixel by pixel."""
    square = per_sample(t, x_t) ** 2
    left, right = (x_t - MEAN).chunk(2, dim=-1)
    halves = []
    for sign in (1, -1):  # the sum and the difference of both are independent
        variance = SIGMA**2 * (1 + sign * CORRELATION)
        halves.append(variance / (variance + square) * (left + sign * right) / math.sqrt(2))
    plus, minus = halves
    return MEAN + torch.cat([plus + minus, plus - minus], -1) / math.sqrt(2)


def score(data, x, t):
    """The score of the denoiser whose estimates are clipped."""
    return (data.denoise(x, full(x, t)).clamp(-1, 1) - x) / t**2


def left_of(y):
    mask = torch.zeros(1, 1, 1, y.shape[-1], dtype=torch.bool)
    mask[..., : y.shape[-1] // 2] = True
    return inpainting(y, mask)


def last(sampler, denoise, known, levels=LEVELS):
    shape = known.reference.shape
    *_, step = conditional(sampler, denoise, lambda i: normals(i, *shape), levels, known)
    return step.x


CORRECTED = [
    PredictorCorrector(120, sde=sde, corrections=10, snr=snr)
    for sde, snr in (("ve", 0.1), ("vp", 0.2), ("sub-vp", 0.1))
]


def scaled(sampler):
    """Unknown pixels in units of their posterior N(m + rho (y - m), s^2 (1 - rho^2)), and the known ones."""
    y = MEAN + SIGMA * normals(99, 8, 1, 16, 32)
    known, unknown = last(sampler, paired, left_of(y)).chunk(2, dim=-1)
    assert torch.equal(known, y.chunk(2, dim=-1)[0])
    spread = SIGMA * math.sqrt(1 - CORRELATION**2)
    units = (unknown - MEAN - CORRELATION * (known - MEAN)) / spread
    return units.flatten().numpy(), known.flatten().numpy()


@pytest.mark.parametrize("sampler", [*CORRECTED, Langevin(200, repeats=20)])
def test_unknown_pixels_have_the_law_of_the_posterior(sampler):
    unknown, known = scaled(sampler)
    assert stats.kstest(unknown, "norm").pvalue > 0.01
    assert abs(stats.pearsonr(unknown, known).statistic) < 0.06


def test_the_corrector_mends_what_the_predictor_takes_for_the_conditional_score():
    """The score of the whole image is not that of the unknown part given the known: it depends too little."""
    found = [
        stats.pearsonr(*scaled(PredictorCorrector(60, corrections=count))).statistic for count in (0, 1, 4)
    ]
    assert found[0] < -0.35
    assert found[0] < 1.5 * found[1] < 3 * found[2]


def test_what_is_unknown_of_independent_pixels_is_free():
    data, y = Gaussian(0.3, 0.2), torch.full((8, 3, 16, 16), 0.9, dtype=torch.float64)
    x = last(PredictorCorrector(100), data.denoise, left_of(y))
    assert data.p_value(x[..., 8:]) > 0.01


@pytest.mark.parametrize("sampler", [PredictorCorrector(5), Langevin(5, repeats=2, denoise=False)])
def test_luminance_and_means_are_kept(sampler):
    y, data = normals(3, 2, 3, 8, 8).clamp(-1, 1), Gaussian(0.0, 0.5)
    for known in (colorization(y), super_resolution(y, 4)):
        x = last(sampler, data.denoise, known)
        forward = known.transform.forward
        difference = (forward(x) - forward(y)).abs()
        assert difference[..., 0].max() < 1e-12
        assert difference[..., 1:].mean() > 0.1


def test_steps_are_the_papers():
    """The known half, computed by hand, is noisy at the noise level of the image after every update."""
    data, y = Gaussian(0.3, 0.2), normals(7, 2, 1, 4, 4) / 4
    sampler = PredictorCorrector(3, snr=0.1)
    index = itertools.count()

    def fresh():
        return normals(next(index), *y.shape)

    def put(x, t):
        noisy = y + t * fresh()
        return torch.cat([noisy[..., :2], x[..., 2:]], -1)

    times = sampler.times(LEVELS)[::-1]
    x = put(times[0] * fresh(), times[0])
    for t, s in itertools.pairwise(times):
        s_t, z = score(data, x, t), fresh()
        size = 2 * (0.1 * z.flatten(1).norm(dim=1) / s_t.flatten(1).norm(dim=1)) ** 2
        size = size[:, None, None, None]
        x = put(x + size * s_t + (2 * size).sqrt() * z, t)
        x = x + (t**2 - s**2) * score(data, x, t)
        x = put(x + (math.sqrt(t**2 - s**2) * fresh() if s else 0), s)
    torch.testing.assert_close(last(sampler, data.denoise, left_of(y)), x, rtol=1e-9, atol=1e-9)


def test_langevin_steps_are_those_of_ncsn():
    data, y = Gaussian(0.3, 0.2), normals(7, 2, 1, 4, 4) / 4
    levels = Langevin(3, repeats=2, step_size=0.1, denoise=False).times(LEVELS)[::-1]
    index = itertools.count()

    def fresh():
        return normals(next(index), *y.shape)

    def put(x, t):
        return torch.cat([(y + t * fresh())[..., :2], x[..., 2:]], -1)

    x = put(levels[0] * fresh(), levels[0])
    for t, _ in itertools.product(levels, range(2)):
        a = 0.1 * t**2
        x = put(x + a * score(data, x, t) + math.sqrt(2 * a) * fresh(), t)
    wanted = torch.cat([y[..., :2], x[..., 2:]], -1)
    found = last(Langevin(3, repeats=2, step_size=0.1, denoise=False), data.denoise, left_of(y))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
