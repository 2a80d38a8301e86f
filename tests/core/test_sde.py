"""VE, VP and sub-VP as names for noise levels: marginals, scores, draws of training, in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.distance import L2
from cm_ray.core.loss import training_loss
from cm_ray.core.methods import Denoising
from cm_ray.core.noise_times import Geometric, LogUniform, SubVPTimes, VPTimes, geometric
from cm_ray.core.precondition import VE, VP, precondition
from cm_ray.core.score_columns import NCSN, SubVP
from cm_ray.core.sde import SDES
from cm_ray.core.times import NoiseLevels
from cm_ray.core.weights import SNR
from cm_ray.errors import SettingError
from tests.core.gaussian import Gaussian, normals

DATA = Gaussian(0.3, 0.4)
UNIFORMS = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
LEVELS = NoiseLevels(t_min=0.01, t_max=100.0)
TIMES = {
    "ve": torch.linspace(-4, 4, 33),
    "vp": torch.linspace(1e-5, 1, 33),
    "sub-vp": torch.linspace(1e-5, 1, 33),
}


def moments(sde, u):
    t = sde.level(u)
    return sde.alpha(t), t * sde.alpha(t)


@pytest.mark.parametrize("name", SDES)
def test_the_marginals_solve_the_equations_of_the_sde(name):
    """alpha' = f alpha and (sigma^2)' = 2 f sigma^2 + g^2, at all times."""
    sde, u = SDES[name], TIMES[name].double().requires_grad_()
    alpha, sigma = moments(sde, u)
    (d_alpha,) = torch.autograd.grad((alpha + 0 * u).sum(), u, retain_graph=True)
    (d_variance,) = torch.autograd.grad((sigma**2).sum(), u)
    f, g2 = sde.drift(u), sde.diffusion_squared(u)
    torch.testing.assert_close(d_alpha, f * alpha, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(d_variance, 2 * f * sigma**2 + g2, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", SDES)
def test_time_and_level_are_inverse(name):
    u = TIMES[name].double()
    torch.testing.assert_close(SDES[name].time(SDES[name].level(u)), u, rtol=1e-9, atol=1e-12)


def test_the_marginals_are_the_published_ones():
    u = torch.linspace(1e-5, 1, 9, dtype=torch.float64)
    mean = (-0.25 * u**2 * 19.9 - 0.5 * u * 0.1).exp()  # the factor of x in both papers' codes
    for name, std in (("vp", (1 - mean**2).sqrt()), ("sub-vp", 1 - mean**2)):
        alpha, sigma = moments(SDES[name], u)
        torch.testing.assert_close(alpha, mean)
        torch.testing.assert_close(sigma, std)
    beta = integrate.quad(lambda v: 0.1 + 19.9 * v, 0, 0.7)[0]
    assert float(SDES["vp"].integral(torch.tensor(0.7))) == pytest.approx(beta)


@pytest.mark.parametrize("name", SDES)
def test_the_denoiser_gives_the_score_of_the_marginals(name):
    """Gaussian data: y_u ~ N(alpha m, alpha^2 s^2 + sigma^2), whose score is known."""
    sde, u = SDES[name], TIMES[name].double()[1:]  # double precision ends where sigma is 1e-6
    alpha, sigma = (each.reshape(-1, 1, 1, 1) for each in moments(sde, u))
    y = alpha * DATA.draw(1, len(u), 1, 2, 2) + sigma * normals(2, len(u), 1, 2, 2)
    score = (alpha * DATA.denoise(y / alpha, sde.level(u)) - y) / sigma**2
    exact = (alpha * DATA.mean - y) / (alpha**2 * DATA.sigma**2 + sigma**2)
    torch.testing.assert_close(score, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "column"), [("ve", VE()), ("vp", VP()), ("sub-vp", SubVP())], ids=["ve", "vp", "sub-vp"]
)
def test_a_score_network_is_a_denoiser(name, column):
    """A network that answers the papers' score networks' exact outputs is the exact denoiser."""
    sde = SDES[name]
    t = torch.tensor([0.02, 0.5, 3.0, 90.0], dtype=torch.float64)
    alpha, sigma = sde.alpha(t).reshape(-1, 1, 1, 1), (t * sde.alpha(t)).reshape(-1, 1, 1, 1)
    seen = {}

    def network(y, time):
        seen["time"] = time
        score = (alpha * DATA.mean - y) / (alpha**2 * DATA.sigma**2 + sigma**2)
        return sigma * score if name == "ve" else -sigma * score  # VP's and sub-VP's predict the noise

    x_t = DATA.draw(3, 4, 1, 2, 2)
    torch.testing.assert_close(precondition(column, network, x_t, t), DATA.denoise(x_t, t))
    wanted = (t / 2).log() if name == "ve" else 999 * sde.time(t)
    torch.testing.assert_close(seen["time"], wanted)


def test_ncsns_network_is_the_score_of_pixels_from_0_to_1():
    column, x_t = NCSN(), DATA.draw(3, 2, 1, 2, 2)
    t = torch.tensor([2.0, 0.02], dtype=torch.float64)

    def network(x, time):
        assert time.tolist() == pytest.approx([0, 9])
        pixels = (x + 1) / 2
        variance = (DATA.sigma / 2) ** 2 + (t / 2).reshape(-1, 1, 1, 1) ** 2
        return ((DATA.mean + 1) / 2 - pixels) / variance

    torch.testing.assert_close(precondition(column, network, x_t, t), DATA.denoise(x_t, t))
    with pytest.raises(SettingError, match="last must be between 0 and first 2, not 3"):
        NCSN(last=3.0)


def test_the_papers_loss_is_that_of_the_noise():
    """lambda = sigma^2 of the score's loss is t^-2 of the denoiser's, on any scale."""
    f = lambda x, t: DATA.denoise(x, t) + 0.1 * t.reshape(-1, 1, 1, 1)  # noqa: E731
    f.diffusion = Diffusion(boundary="none", column=VE(), t_min=0.01, t_max=50.0)
    method, x = Denoising(times=LogUniform(), weight=SNR(), distance=L2()), DATA.draw(0, 8, 1, 2, 2)
    loss = training_loss(method, f, x, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    torch.randint(2**62, (), generator=generator)
    t, _ = LogUniform()(torch.rand(8, generator=generator), 0, 1, f.diffusion)
    z, t = torch.randn(x.shape, generator=generator).double(), t.double().reshape(-1, 1, 1, 1)
    score = (f(x + t * z, t.flatten()) - x - t * z) / t**2
    torch.testing.assert_close(loss, (t**2 * (score + z / t) ** 2).flatten(1).mean(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("times", "name"),
    [(LogUniform(), "ve"), (VPTimes(), "vp"), (SubVPTimes(), "sub-vp")],
    ids=["ve", "vp", "sub"],
)
def test_continuous_times_are_uniform_in_the_sdes_time(times, name):
    t, s = times(UNIFORMS, 3, 9, LEVELS)
    assert not s.any()
    assert t.dtype == torch.float32
    assert LEVELS.t_min <= float(t.min()) < float(t.max()) <= LEVELS.t_max
    ends = SDES[name].time(torch.tensor([0.01, 100.0], dtype=torch.float64))
    u = (SDES[name].time(t.double()) - ends[0]) / (ends[1] - ends[0])
    assert stats.kstest(u.numpy(), "uniform").pvalue > 0.01
    torch.testing.assert_close(u, UNIFORMS.double(), atol=1e-4, rtol=0)


def test_likelihood_weighting_is_log_uniform():
    """Uniform u with g^2/sigma^2 on the noise's loss has, up to a constant, the mass of ln t uniform."""
    for name in ("vp", "sub-vp"):
        sde, u = SDES[name], torch.linspace(0.01, 1, 50, dtype=torch.float64).requires_grad_()
        t = sde.level(u)
        (slope,) = torch.autograd.grad(t.log().sum(), u)
        weight = sde.diffusion_squared(u) / (t * sde.alpha(t)) ** 2
        torch.testing.assert_close(weight, 2 * slope)


def test_geometric_levels_have_a_common_ratio_and_are_drawn_alike():
    levels = geometric(10, LEVELS)
    assert (levels[0], levels[-1]) == (0.01, 100)
    torch.testing.assert_close(
        levels[1:] / levels[:-1], torch.full((9,), 1e4 ** (1 / 9), dtype=torch.float64)
    )
    t, _ = Geometric(10)(UNIFORMS, 0, 1, LEVELS)
    values, counts = t.unique(return_counts=True)
    torch.testing.assert_close(values, levels.float())
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_discrete_vp_has_ddpms_levels():
    """By brute force: the product of 1 - beta over DDPM's linear schedule."""
    betas = np.linspace(1e-4, 2e-2, 1000)
    levels = [math.sqrt(1 / product - 1) for product in np.cumprod(1 - betas)]
    noise = NoiseLevels(t_min=1e-3, t_max=200.0)
    torch.testing.assert_close(VPTimes(count=1000).levels(noise), torch.tensor(levels, dtype=torch.float64))
    fewer = VPTimes(count=1000).levels(LEVELS)
    assert fewer.tolist() == pytest.approx([t for t in levels if 0.01 <= t <= 100])
    t, _ = VPTimes(count=1000)(UNIFORMS, 0, 1, noise)
    assert {float(each) for each in t} <= {float(np.float32(each)) for each in levels}


def test_times_check_themselves():
    for make, sentence in (
        (lambda: Geometric(1), "count must be at least 2, not 1"),
        (lambda: VPTimes(count=1), "count must be 0 or at least 2"),
        (lambda: VPTimes(beta_d=0.0), "beta_d must be positive"),
        (lambda: SubVP(steps=1), "steps must be at least 2"),
        (
            lambda: VPTimes(count=2)(UNIFORMS, 0, 1, NoiseLevels(t_min=0.1, t_max=0.2)),
            "gives no time between",
        ),
    ):
        with pytest.raises(SettingError, match=sentence):
            make()
