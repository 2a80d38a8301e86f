"""Shortcut models: jumps of the closed form agree with their halves, and lengths and places are dyadic."""

import pytest
import torch

from cm_ray.core.derivative import Target
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.draw import Draw
from cm_ray.core.methods import euler_to_denoised
from cm_ray.core.pairs import perturb
from cm_ray.core.precondition import Linear
from cm_ray.core.schedules import AdaptiveDecay
from cm_ray.core.shortcut import DyadicTimes, ShortcutTraining
from cm_ray.core.solvers import euler_step
from cm_ray.core.times import NoiseLevels
from cm_ray.core.two_times import linear_time, noise_level
from cm_ray.errors import SettingError
from tests.core.gaussian import Gaussian, normals

DATA, LEVELS = Gaussian(0.2, 0.5), NoiseLevels()
WHOLE = 80 / 81
TIMES = DyadicTimes(lengths=3)
"""Jumps of 1, 1/2 and 1/4 of the way."""


def drawn(pairs):
    """Return a draw of jumps between shares of the way from 0 to t_max."""
    u, r = (WHOLE * torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    t, s = noise_level(u), noise_level(r)
    x, noise = DATA.draw(0, len(t), 1, 2, 2), normals(1, len(t), 1, 2, 2)
    return Draw(x, noise, perturb(x, noise, t), t, s, Diffusion(column=Linear(), boundary="two-times"))


def aim(draw, function):
    return ShortcutTraining(times=TIMES).aim(draw, Target(function), DATA.denoise)


def test_long_jumps_of_the_exact_function_are_their_own_aim():
    draw, method = drawn([(1.0, 0.0), (1.0, 0.5), (0.5, 0.0)]), ShortcutTraining(times=TIMES)
    exact = DATA.mean_denoised(draw.x_t, draw.t, draw.s)
    torch.testing.assert_close(aim(draw, DATA.mean_denoised), exact, rtol=0, atol=1e-11)
    assert method.compare(exact, aim(draw, DATA.mean_denoised), draw, method.distance).max() < 1e-20
    bent = aim(draw, lambda x, t, s: DATA.mean_denoised(x, t, s) + 0.1 * x)
    assert (bent - exact - 0.1 * draw.x_t).abs().max() > 1e-2


def test_the_halves_of_the_shortest_jumps_are_eulers_steps_with_the_denoiser():
    draw = drawn([(1.0, 0.75), (0.5, 0.25), (0.25, 0.0)])
    middle = noise_level((linear_time(draw.t) + linear_time(draw.s)) / 2)
    half = euler_step(DATA.denoise, draw.x_t, draw.t, middle)
    wanted = euler_to_denoised(draw.x_t, draw.t, euler_step(DATA.denoise, half, middle, draw.s), draw.s)
    found = aim(draw, DATA.mean_denoised)
    torch.testing.assert_close(found, wanted)
    assert (found - DATA.mean_denoised(draw.x_t, draw.t, draw.s)).abs().max() > 1e-3


def test_the_average_velocity_of_a_jump_is_the_mean_of_those_of_its_halves():
    """Frans et al. 2024, Eq. 5, in their notation: (s(x, t, d) + s(x', t + d, d))/2."""
    draw = drawn([(1.0, 0.0), (0.5, 0.0)])

    def mean(x, t, s):
        return torch.sin(x + t.view(-1, 1, 1, 1)) + s.view(-1, 1, 1, 1)

    def velocity(z, u, r):
        t, s = noise_level(u), noise_level(r)
        return (z - mean(z * (1 + t).view(-1, 1, 1, 1), t, s)) / u.view(-1, 1, 1, 1)

    u, r = linear_time(draw.t), linear_time(draw.s)
    z, middle = draw.x_t / (1 + draw.t).view(-1, 1, 1, 1), (u + r) / 2
    first = velocity(z, u, middle)
    second = velocity(z - (u - middle).view(-1, 1, 1, 1) * first, middle, r)
    found = (z - aim(draw, mean)) / u.view(-1, 1, 1, 1)
    torch.testing.assert_close(found, (first + second) / 2)


def test_at_equal_times_the_aim_is_the_image():
    draw = drawn([(1.0, 1.0), (0.3, 0.3), (1e-6, 1e-6)])
    assert torch.equal(aim(draw, DATA.mean_denoised), draw.x)


def test_times_are_dyadic_and_all_lengths_alike():
    uniforms = torch.rand(40_000, 3, generator=torch.Generator().manual_seed(0))
    t, s = TIMES(uniforms, 0, 1, LEVELS)
    assert t.dtype == s.dtype == torch.float32
    assert float((s < t).float().mean()) == pytest.approx(0.25, abs=0.01)
    u, r = (linear_time(each[s < t].double()) / WHOLE for each in (t, s))
    gaps, counts = (u - r).mul(4).round().unique(return_counts=True)
    assert gaps.tolist() == [1, 2, 4]
    torch.testing.assert_close(counts / counts.sum(), torch.full((3,), 1 / 3), rtol=0, atol=0.02)
    torch.testing.assert_close((u - r) * 4, ((u - r) * 4).round(), rtol=0, atol=1e-4)
    places = (r / (u - r)).round()
    assert {float(each) for each in places[(u - r) < 0.3]} == {0.0, 1.0, 2.0, 3.0}
    assert (t <= LEVELS.t_max).all()
    single = linear_time(t[s == t].double())
    assert float(single.mean()) == pytest.approx(WHOLE / 2, abs=0.01)
    assert float(t[s == t].min()) >= LEVELS.t_min
    assert int(TIMES.shortest(t, s, LEVELS)[s < t].sum()) == int(counts[0])


def test_all_lengths_of_the_paper():
    uniforms = torch.tensor([[0.0, k / 7 + 0.01, 0.999] for k in range(7)])
    t, s = DyadicTimes()(uniforms, 0, 1, LEVELS)
    lengths = (linear_time(t) - linear_time(s)) / WHOLE
    torch.testing.assert_close(lengths, 2.0 ** -torch.arange(7.0), rtol=1e-3, atol=0)
    assert DyadicTimes().shortest(t, s, LEVELS).tolist() == [False] * 6 + [True]


def test_values_out_of_range_are_refused():
    for wrong in ({"share": 1.1}, {"lengths": 0}, {"lengths": 21}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DyadicTimes(**wrong)
    with pytest.raises(SettingError, match="target"):
        ShortcutTraining(target=AdaptiveDecay())
