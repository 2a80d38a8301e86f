"""Consistency models in continuous time, against closed forms, the papers' own notation and small steps."""

import math
from dataclasses import replace

import pytest
import torch

from cm_ray.core.continuous import (
    ContinuousDistillation,
    ContinuousTraining,
    SimplifiedDistillation,
    SimplifiedTraining,
)
from cm_ray.core.derivative import Target, along
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.draw import Draw
from cm_ray.core.methods import ConsistencyDistillation, ConsistencyTraining
from cm_ray.core.pairs import perturb
from cm_ray.core.precondition import VP, TrigFlow, precondition
from cm_ray.core.types import per_sample
from cm_ray.errors import SettingError
from tests.core.gaussian import Gaussian, normals, order

SD = 0.7
DATA = Gaussian(0.2, 0.5)
TRIG = Diffusion(column=TrigFlow(sigma_data=SD), boundary="zero")
SHAPE = (1, 2, 2)
TIMES = (0.01, 0.3, 2.0, 60.0)


def drawn(s=None, step=10**9, diffusion=TRIG):
    t = torch.tensor(TIMES, dtype=torch.float64)
    x, noise = DATA.draw(0, 4, *SHAPE), normals(1, 4, *SHAPE)
    return Draw(x, noise, perturb(x, noise, t), t, t * 0.9 if s is None else s, diffusion, step)


def network(x, time):
    """Return a smooth F with a dependence on both arguments and between pixels (b, c, h, w)."""
    mixed = x.flatten(1) @ normals(2, 4, 4)
    return torch.sin(mixed + per_sample(time, mixed)).reshape(x.shape) + 0.3 * x.square()


def f(x_t, t):
    return precondition(TRIG.scalings, network, x_t, t)


@pytest.mark.parametrize("dx_scale", [0.0, 1.0, 30.0])
def test_a_derivative_is_that_of_small_steps(dx_scale):
    draw, eps = drawn(), 1e-5
    dx, dt = dx_scale * normals(5, 4, *SHAPE), draw.t * 0.1
    value, slope = along(f, draw.x_t, draw.t, dx, dt)
    ahead, behind = (f(draw.x_t + e * dx, draw.t + e * dt) for e in (eps, -eps))
    torch.testing.assert_close(value, f(draw.x_t, draw.t))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * eps), rtol=1e-6, atol=1e-7)
    assert not slope.requires_grad


def papers_tangent(draw, clean, r):
    """Return g in TrigFlow's notation, with dF/dt by central differences, and F (b, c, h, w)."""
    u = torch.atan2(draw.t, torch.full_like(draw.t, SD))
    cos, sin = (per_sample(each, draw.x) for each in (u.cos(), u.sin()))
    x_u = cos * draw.x_t
    v = (cos * x_u - clean) / sin  # as D = cos x_u - sin v
    eps = 1e-6
    ahead, behind = (network((x_u + e * v) / SD, u + e) for e in (eps, -eps))
    f_u, slope = network(x_u / SD, u), (ahead - behind) / (2 * eps)
    return -(cos**2) * (SD * f_u - v) - r * cos * sin * (x_u + SD * slope), f_u


@pytest.mark.parametrize("r", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("norm", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["training", "distillation"])
def test_the_residual_of_the_network_is_the_papers(r, norm, kind):
    """F - sg(F) - g/(|g| + c), where F is the student's output and the aim is that of f."""
    draw = replace(drawn(), step=int(r * 1000))
    if kind == "training":
        method, clean = SimplifiedTraining(warmup=1000, norm=norm), draw.x
    else:
        method, clean = SimplifiedDistillation(warmup=1000, norm=norm), DATA.denoise(draw.x_t, draw.t)
    aim = method.aim(draw, Target(f), DATA.denoise)
    tangent, output = papers_tangent(draw, clean, r)
    size = tangent.flatten(1).norm(dim=1) / (2 if norm == "mean" else 1)
    residual = -tangent / (per_sample(size, tangent) + 0.1)
    scalings = TRIG.scalings
    student = precondition(scalings, lambda *_: output, draw.x_t, draw.t)
    found = (student - aim) / per_sample(scalings.c_out(draw.t), aim)
    torch.testing.assert_close(found, residual, rtol=1e-5, atol=1e-7)
    loss = method.weight(draw.t, draw.s, TRIG.column) * method.distance(student, aim)
    torch.testing.assert_close(loss, residual.square().flatten(1).mean(1), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("method", [SimplifiedDistillation(warmup=0), ContinuousDistillation()])
def test_the_exact_consistency_function_is_its_own_aim(method):
    draw = drawn()
    exact = DATA.consistency()
    aim = method.aim(draw, Target(exact), DATA.denoise)
    torch.testing.assert_close(aim, exact(draw.x_t, draw.t), rtol=0, atol=1e-9)
    wrong = method.aim(draw, Target(lambda x, t: 1.05 * exact(x, t) - 0.05 * x / (1 + t[0])), DATA.denoise)
    assert (wrong - exact(draw.x_t, draw.t)).abs().max() > 1e-3


def test_training_has_the_exact_function_as_its_mean():
    """The mean of the unnormalised tangent over data given x_t vanishes: E[x | x_t] is the denoiser's."""
    count = 200_000
    x_t = torch.full((count, 1, 1, 1), 0.9, dtype=torch.float64)
    t = torch.full((count,), 0.8, dtype=torch.float64)
    variance = 1 / (DATA.sigma**-2 + 0.8**-2)
    mean = DATA.denoise(x_t, t)
    x = mean + math.sqrt(variance) * normals(3, count, 1, 1, 1)
    draw = Draw(x, (x_t - x) / 0.8, x_t, t, 0.7 * t, TRIG, 10**9)
    exact = DATA.consistency()
    step = exact(x_t, t) - ContinuousTraining().aim(draw, Target(exact), DATA.denoise)
    assert abs(float(step.mean())) < 4 * float(step.std()) / math.sqrt(count)
    assert float(step.std()) > 1e-2


@pytest.mark.parametrize("kind", ["training", "distillation"])
def test_finite_differences_come_closer_with_the_square_of_the_gap(kind):
    errors, gaps = [], [0.1, 0.05, 0.025, 0.0125]
    for gap in gaps:
        draw = drawn(s=torch.tensor(TIMES, dtype=torch.float64) * (1 - gap))
        if kind == "training":
            small, smooth = ConsistencyTraining(), ContinuousTraining()
        else:
            small, smooth = ConsistencyDistillation(solver="heun"), ContinuousDistillation()
        difference = small.aim(draw, f, DATA.denoise) - smooth.aim(draw, Target(f), DATA.denoise)
        errors.append(float(difference.abs().max()))
    assert 1.8 < order([1 / gap for gap in gaps], errors) < 2.2


def test_the_warm_up_ends_at_one():
    method = SimplifiedTraining(warmup=100)
    assert [method.share(step) for step in (0, 25, 100, 1000)] == [0.0, 0.25, 1.0, 1.0]
    assert method.gauges(25, 1000) == {"tangent_share": 0.25}
    assert SimplifiedTraining(warmup=0).share(0) == 1.0


def test_a_precise_target_gives_the_derivative_and_the_plain_one_the_images():
    draw = drawn()
    rounded = Target(lambda x, t: f(x, t).bfloat16().double(), f)
    value, slope = rounded.along(draw.x_t, draw.t, draw.noise, torch.ones_like(draw.t))
    assert torch.equal(value, f(draw.x_t, draw.t).bfloat16().double())
    assert torch.equal(slope, along(f, draw.x_t, draw.t, draw.noise, torch.ones_like(draw.t))[1])


def test_trigflow_is_column_edm_with_an_angle_as_time():
    t = torch.tensor(TIMES, dtype=torch.float64)
    column = TrigFlow(sigma_data=SD)
    angle = column.network_time(t)
    torch.testing.assert_close(angle.tan() * SD, t)
    torch.testing.assert_close(column.c_skip(t), angle.cos() ** 2)
    torch.testing.assert_close(column.c_out(t), -SD * angle.sin())
    torch.testing.assert_close(column.c_in(t), angle.cos() / SD)
    zero = torch.zeros(1, dtype=torch.float64)
    x = normals(0, 1, *SHAPE)
    assert torch.equal(precondition(TRIG.scalings, network, x, zero), x)


def test_values_out_of_range_are_refused():
    with pytest.raises(SettingError, match="warmup"):
        SimplifiedTraining(warmup=-1)
    with pytest.raises(SettingError, match="constant"):
        SimplifiedDistillation(constant=0.0)
    draw = drawn(diffusion=Diffusion(column=VP(), boundary="zero"))
    with pytest.raises(SettingError, match="trigflow or edm"):
        SimplifiedTraining().aim(draw, Target(f), DATA.denoise)
