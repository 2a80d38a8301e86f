"""Functions of two times: closed forms, the paper's own notation, jumps that compose, times of training."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from cm_ray.core.derivative import Target, along
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.distance import AdaptiveL2
from cm_ray.core.draw import Draw
from cm_ray.core.pairs import perturb
from cm_ray.core.precondition import Linear, precondition
from cm_ray.core.solvers import euler_step
from cm_ray.core.times import NoiseLevels
from cm_ray.core.two_times import MeanFlow, SortedTimes, linear_time
from cm_ray.core.types import per_sample
from cm_ray.errors import SettingError
from cm_ray.networks.preconditioned import TwoTimes
from tests.core.gaussian import Gaussian, normals

DATA = Gaussian(0.2, 0.5)
TWO = Diffusion(column=Linear(), boundary="two-times")
SHAPE = (1, 2, 2)
TIMES = torch.tensor([0.01, 0.3, 2.0, 60.0], dtype=torch.float64)
ENDS = {"at t": 1.0, "between": 0.4, "at 0": 0.0}
LEVELS = NoiseLevels()


def drawn(s, *, exact=False):
    """Return a draw; exact: of an image on the trajectory of all data, whose direction is the mean one."""
    x, noise = DATA.draw(0, 4, *SHAPE), normals(1, 4, *SHAPE)
    x_t = perturb(x, noise, TIMES)
    if exact:
        x = DATA.denoise(x_t, TIMES)
        noise = (x_t - x) / per_sample(TIMES, x)
    return Draw(x, noise, x_t, TIMES, s, TWO)


def network(z, time, second):
    """Return a smooth average velocity, which depends on both times, and between pixels (b, c, h, w)."""
    mixed = z.flatten(1) @ normals(2, 4, 4)
    bent = torch.sin(mixed + per_sample(time, mixed)) * per_sample(1 + second.square(), mixed)
    return bent.reshape(z.shape) + 0.3 * z.square()


def mean(x_t, t, s):
    """Return D(x_t, t, s) of the network."""
    second = TWO.scalings.network_time(t) - TWO.scalings.network_time(s)
    return precondition(TWO.scalings, lambda z, time: network(z, time, second), x_t, t)


def jump(function, x_t, t, s):
    return euler_step(lambda x, time: function(x, time, s), x_t, t, s)


@pytest.mark.parametrize("end", ENDS)
def test_the_closed_form_is_the_flow_and_its_ends_are_denoiser_and_consistency_function(end):
    draw = drawn(TIMES * ENDS[end])
    arrived = jump(DATA.mean_denoised, draw.x_t, TIMES, draw.s)
    torch.testing.assert_close(arrived, DATA.flow(draw.x_t, TIMES, draw.s), rtol=1e-12, atol=1e-12)
    clean = DATA.mean_denoised(draw.x_t, TIMES, draw.s)
    if end == "at t":
        torch.testing.assert_close(clean, DATA.denoise(draw.x_t, TIMES))
    if end == "at 0":
        torch.testing.assert_close(clean, DATA.consistency(0.0)(draw.x_t, TIMES))


def test_exact_jumps_compose():
    x_t, middle, end = drawn(TIMES).x_t, TIMES * 0.37, TIMES * 0.1
    there = jump(DATA.mean_denoised, x_t, TIMES, middle)
    torch.testing.assert_close(
        jump(DATA.mean_denoised, there, middle, end), jump(DATA.mean_denoised, x_t, TIMES, end)
    )
    wrong = jump(mean, jump(mean, x_t, TIMES, middle), middle, end) - jump(mean, x_t, TIMES, end)
    assert wrong.abs().max() > 1e-2, "jumps of another function do not"


@pytest.mark.parametrize("end", ENDS)
def test_the_exact_function_is_its_own_aim(end):
    method, draw = MeanFlow(), drawn(TIMES * ENDS[end], exact=True)
    exact = DATA.mean_denoised(draw.x_t, TIMES, draw.s)
    aim = method.aim(draw, Target(DATA.mean_denoised), DATA.denoise)
    torch.testing.assert_close(aim, exact, rtol=0, atol=1e-12)
    assert method.compare(exact, aim, draw, method.distance).max() < 1e-18
    if end != "at t":
        bent = method.aim(draw, Target(lambda x, *at: DATA.mean_denoised(x, *at) + 0.05 * x), DATA.denoise)
        assert (bent - exact - 0.05 * draw.x_t).abs().max() > 1e-3


@pytest.mark.parametrize("end", ENDS)
def test_aim_and_loss_are_the_papers_in_its_own_notation(end):
    """u_tgt = v - (t - r) du/dt, the derivative along (v, 0, 1) of (z, r, t), and the loss of u."""
    method, draw = MeanFlow(distance=AdaptiveL2(p=0.75, c=0.3)), drawn(TIMES * ENDS[end])
    u, r = linear_time(TIMES), linear_time(draw.s)
    z = (1 - per_sample(u, draw.x)) * draw.x + per_sample(u, draw.x) * draw.noise
    v, eps = draw.noise - draw.x, 1e-6

    def velocity(z, u):
        return network(z, u, u - r)

    slope = (velocity(z + eps * v, u + eps) - velocity(z - eps * v, u - eps)) / (2 * eps)
    wanted = v - per_sample(u - r, v) * slope
    aim = method.aim(draw, Target(mean), DATA.denoise)
    torch.testing.assert_close((z - aim) / per_sample(u, z), wanted, rtol=1e-6, atol=1e-7)

    square = (velocity(z, u) - wanted).square().flatten(1).sum(1)
    loss = method.compare(mean(draw.x_t, TIMES, draw.s), aim, draw, method.distance)
    torch.testing.assert_close(loss, square / (square + 0.3) ** 0.75, rtol=1e-5, atol=1e-7)


def test_at_equal_times_the_aim_is_the_image_and_the_network_the_velocity():
    draw = drawn(TIMES.clone())
    assert torch.equal(MeanFlow().aim(draw, Target(mean), DATA.denoise), draw.x)
    z, u = draw.x_t / per_sample(1 + TIMES, draw.x), linear_time(TIMES)
    velocity = (z - mean(draw.x_t, TIMES, TIMES)) / per_sample(u, z)
    torch.testing.assert_close(velocity, network(z, u, torch.zeros_like(u)), rtol=1e-9, atol=1e-9)


def test_the_mean_aim_over_the_data_is_that_of_the_trajectory():
    count, at = 200_000, 0.8
    x_t = torch.full((count, 1, 1, 1), 0.9, dtype=torch.float64)
    t = torch.full((count,), at, dtype=torch.float64)
    spread = math.sqrt(1 / (DATA.sigma**-2 + at**-2))
    x = DATA.denoise(x_t, t) + spread * normals(3, count, 1, 1, 1)
    draw = Draw(x, (x_t - x) / at, x_t, t, 0.3 * t, TWO)
    off = MeanFlow().aim(draw, Target(DATA.mean_denoised), DATA.denoise) - DATA.mean_denoised(x_t, t, 0.3 * t)
    assert abs(float(off.mean())) < 4 * float(off.std()) / math.sqrt(count)
    assert float(off.std()) > 1e-2


def test_a_target_that_ends_somewhere_keeps_its_precise_twin():
    draw = drawn(TIMES * 0.5)
    rounded = Target(lambda x, t, s: mean(x, t, s).bfloat16().double(), mean).ending(draw.s)
    one = torch.ones_like(TIMES)
    value, slope = rounded.along(draw.x_t, TIMES, draw.noise, one)
    assert torch.equal(value, mean(draw.x_t, TIMES, draw.s).bfloat16().double())
    fixed = along(lambda x, t: mean(x, t, draw.s), draw.x_t, TIMES, draw.noise, one)[1]
    assert torch.equal(slope, fixed)


def test_times_are_sorted_logit_normal_ones_and_a_share_is_equal():
    uniforms = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    t, s = SortedTimes(mean=-0.4, std=1.0, apart=0.25)(uniforms, 0, 1, LEVELS)
    assert t.dtype == s.dtype == torch.float32
    assert (t >= s).all()
    assert float((t > s).float().mean()) == pytest.approx(0.25, abs=0.01)
    t, s = SortedTimes(mean=-0.4, std=1.0, apart=1.0)(uniforms, 0, 1, LEVELS)
    u = linear_time(torch.cat([t, s]).double())
    assert stats.kstest(torch.logit(u).numpy(), stats.norm(-0.4, 1.0).cdf).pvalue > 0.01


class Plain(torch.nn.Module):
    """The network of these tests as a module."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, z, time, *, second):
        return self.scale * network(z, time, second)


def test_the_loss_of_a_loop_of_ones_own_is_that_of_the_method():
    method, f = MeanFlow(distance=AdaptiveL2(p=0.5)), TwoTimes(Plain())
    loss = method(f, DATA.draw(0, 4, *SHAPE), generator=torch.Generator().manual_seed(1))
    assert loss.shape == (4,)
    loss.mean().backward()
    assert float(f.network.scale.grad.abs()) > 1e-3
    draw = drawn(TIMES * 0.4)
    torch.testing.assert_close(f(draw.x_t, TIMES, None, draw.s), mean(draw.x_t, TIMES, draw.s))
    consistent = f(draw.x_t, TIMES)
    assert torch.equal(consistent, f(draw.x_t, TIMES, None, torch.zeros_like(TIMES))), "s is 0 by default"
    one = TwoTimes(Plain())
    one.diffusion = replace(TWO, boundary="zero")
    with pytest.raises(ValueError, match="one time"):
        one(draw.x_t, TIMES, None, draw.s)


def test_values_out_of_range_are_refused():
    with pytest.raises(SettingError, match="apart"):
        SortedTimes(apart=1.5)
    with pytest.raises(SettingError, match="std"):
        SortedTimes(std=0.0)
