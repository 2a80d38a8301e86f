"""Truncated consistency models: the boundary at t', times against SciPy's, weights of the two parts."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from cm_ray import recipes
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.draw import Draw
from cm_ray.core.loss import training_loss
from cm_ray.core.pairs import perturb
from cm_ray.core.precondition import EDM
from cm_ray.core.proposals import Tuned
from cm_ray.core.times import NoiseLevels
from cm_ray.core.truncated import TruncatedTimes, TruncatedTraining
from cm_ray.core.types import per_sample
from cm_ray.core.weights import InverseGap, UniformWeight
from cm_ray.errors import SettingError
from cm_ray.settings.tree import override
from tests.core.gaussian import Gaussian, normals, order

SHAPE = (1, 2, 2)
LEVELS = NoiseLevels()


def stratified(count):
    """Return numbers that are spread evenly over (0, 1), float64 (count,)."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def drawn(t, s, data):
    t, s = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
    x, noise = data.draw(0, len(t), *SHAPE), normals(1, len(t), *SHAPE)
    return Draw(x, noise, perturb(x, noise, t), t, s)


@pytest.mark.parametrize("df", [0.01, 2.0, 1e6])
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.2), (1.0, 1.5)])
def test_the_times_above_are_scipys(df, mean, scale):
    times = TruncatedTimes(cut=0.5, share=0.0, mean=mean, scale=scale, df=df)
    uniforms = stratified(500)
    t, _ = times(uniforms, 0, 1, LEVELS)
    law = stats.t(df, loc=mean, scale=scale)
    low, high = (law.cdf(float(torch.tensor(each, dtype=torch.float64).log())) for each in (0.5, 80.0))
    expected = torch.tensor(law.ppf(low + uniforms.numpy() * (high - low)))
    torch.testing.assert_close(t.double().log(), expected, rtol=1e-5, atol=1e-5)


def test_a_share_of_the_times_is_the_boundary_and_the_others_are_above():
    times = TruncatedTimes(cut=0.3, share=0.25)
    t, s = times(stratified(1000), 0, 1, LEVELS)
    at = times.at_boundary(t)
    assert int(at.sum()) == 250
    assert torch.equal(t[at], torch.full_like(t[at], 0.3))
    assert (t[~at] > 0.3).all()
    assert t.max() <= 80
    assert (s < t).all()
    assert (s[at] < 0.3).all(), "the first stage is the target at the boundary"
    assert (t[at].double() - times.cut).abs().max() > 0, "float32 moves 0.3, which must not matter"


def test_the_pairs_are_those_of_a_late_stage_of_ect():
    stage = Tuned(mean=1.0, std=0.5, stages=6)
    t, s = stage(stratified(100), 5, 6, LEVELS)
    times = TruncatedTimes(cut=1e-2, share=0.0, mean=1.0, scale=0.5, df=1e7, ratio=1 - 2.0**-6)
    mine, below = times(stratified(100), 0, 1, LEVELS)
    torch.testing.assert_close(mine, t, rtol=1e-3, atol=0)
    torch.testing.assert_close(below / mine, s / t, rtol=1e-4, atol=0)


@pytest.mark.parametrize("pair", [InverseGap(), UniformWeight()])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_the_mean_loss_is_that_above_and_a_tenth_of_that_at_the_boundary(share, pair):
    method = TruncatedTraining(times=TruncatedTimes(share=share), weight=pair)
    t, s = method.times(stratified(1000), 0, 1, LEVELS)
    t, s = t.double(), s.double()
    at, value = method.times.at_boundary(t), (1 + t).log()
    loss = (method.weigh(t, s, EDM()) * value).mean()
    plain = pair(t, s, EDM()) * value
    boundary = 0.1 * plain[at].mean() if share else 0.0
    torch.testing.assert_close(loss, plain[~at].mean() + boundary)


def test_the_first_stage_is_the_target_below_and_the_student_above():
    draw = drawn((1.0, 1.05, 1.05, 60.0), (0.9, 0.99, 1.0, 59.0), Gaussian())
    aim = TruncatedTraining().aim(draw, lambda x, t: x + 5, lambda x, t: x - 5)
    moved = aim - perturb(draw.x, draw.noise, draw.s)
    assert moved.mean((1, 2, 3)).round().tolist() == [-5, -5, 5, 5]


def test_of_a_single_image_the_exact_function_has_no_loss_and_a_wrong_first_stage_has():
    """All trajectories of a point mass end alike, so that f(x_t, t) = f(x_s, s) for each of them."""
    point = Gaussian(0.2, 0.0)
    draw = drawn((1.0, 1.0, 1.05, 2.0, 60.0), (0.9, 0.99, 0.98, 1.9, 55.0), point)
    exact, method = point.consistency(), TruncatedTraining()
    answer = exact(draw.x_t, draw.t)
    loss = method.distance(answer, method.aim(draw, exact, exact))
    assert loss.max() < 1e-12
    wrong = method.distance(answer, method.aim(draw, exact, lambda x, t: exact(x, t) + 0.1))
    assert wrong[:3].min() > 0.1
    assert wrong[3:].max() < 1e-12


@pytest.mark.parametrize("t", [1.0, 5.0])
def test_the_mean_aim_is_the_exact_function_in_second_order(t):
    """E[x_s | x_t] is Euler's step with the denoiser, and f of Gaussian data is linear in x."""
    data, gaps, errors = Gaussian(0.2, 0.5), (0.1, 0.05, 0.025, 0.0125), []
    exact = data.consistency()
    for gap in gaps:
        draw = drawn((t, t), (t * (1 - gap), t * (1 - gap)), data)
        clean = data.denoise(draw.x_t, draw.t)
        mean = replace(draw, x=clean, noise=(draw.x_t - clean) / per_sample(draw.t, clean))
        aim = TruncatedTraining().aim(mean, exact, exact)
        errors.append(float((aim - exact(draw.x_t, draw.t)).abs().max()))
    assert 1.8 < order([1 / gap for gap in gaps], errors) < 2.2


def test_the_first_stage_alone_determines_the_student_through_the_boundary():
    """A student f = a(t) x_t + b, fitted to its own target from above, takes over what the first stage says.

    The data is one image, b. With the first stage a_0(t) = c/t, which is the exact one times c/t_min, the
    consistent continuation above t' is c/t, too.
    """
    c, b = 0.05, 0.2
    data = Gaussian(b, 0.0)
    grid = torch.tensor([1.0 * 1.1**i for i in range(20)], dtype=torch.float64)
    below = float(grid[0]) / 1.1
    values = torch.zeros(20, dtype=torch.float64)

    def student(x, t):
        nearest = (t[:, None] / grid).log().abs().argmin(1)
        return b + per_sample(values[nearest], x) * (x - b)

    def first(x, t):
        return b + per_sample(c / t, x) * (x - b)

    draw = drawn(grid.tolist(), [below, *grid[:-1].tolist()], data)
    for _ in range(20):  # each sweep fits the student to its targets, exactly
        aim = TruncatedTraining(times=TruncatedTimes(cut=1.0)).aim(draw, student, first)
        values = ((aim - b) / (draw.x_t - b)).mean((1, 2, 3))
    torch.testing.assert_close(values, c / grid, rtol=1e-9, atol=0)


def test_it_is_a_loss_for_a_loop_of_ones_own():
    def f(x_t, t):
        return x_t * 0.5

    f.diffusion = Diffusion()
    x, method = torch.zeros(64, *SHAPE), TruncatedTraining()

    def loss(**options):
        return training_loss(method, f, x, generator=torch.Generator().manual_seed(0), **options)

    with pytest.raises(ValueError, match="needs a teacher"):
        loss()
    same, other = loss(teacher=f), loss(teacher=lambda x_t, t: x_t * 0.2)
    changed = same != other
    assert 16 * 0.4 < int(changed.sum()) < 40, "the pairs at the boundary and a few above it"
    assert method.needs_teacher


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"times.cut": 0.0}, "times.cut must be positive"),
        ({"times.cut": 90.0}, "times.cut must be between 0.002 and 80, not 90"),
        ({"times.share": 1.0}, "times.share must be in"),
        ({"times.ratio": 1.0}, "times.ratio must be in"),
        ({"times.df": 0.0}, "times.df must be positive"),
        ({"boundary_weight": -1.0}, "boundary_weight must not be negative"),
        ({"target": "adaptive"}, "target adaptive follows N"),
        ({"evaluation.samplers": ("one-step", "multistep@0.9")}, "multistep@0.9: has a time point below"),
        ({"times.cut": 3.0}, "multistep@2.0: has a time point below times.cut 3"),
    ],
)
def test_what_does_not_fit_is_refused(changes, sentence):
    with pytest.raises(SettingError) as refused:
        override(recipes.tcm_digits(), changes)
    assert sentence in str(refused.value)
