"""The loss for a loop of one's own is the engine's: the same formula, masks and curricula."""

import dataclasses

import pytest
import torch
from torch import nn

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.distance import L1, PseudoHuber
from cm_ray.core.loss import training_loss
from cm_ray.core.methods import (
    ConsistencyDistillation,
    ConsistencyTraining,
    Denoising,
    ProgressiveDistillation,
)
from cm_ray.core.precondition import precondition
from cm_ray.core.proposals import Grid, LognormalIntervals, Tuned
from cm_ray.core.schedules import AdaptiveDecay, Constant, ConstantDecay, Doubling, Halving
from cm_ray.core.solvers import euler_step, heun_step
from cm_ray.core.types import per_sample
from cm_ray.core.weights import InverseGap
from tests.core.gaussian import Gaussian, normals

X = (0.5 * normals(0, 6, 1, 4, 4)).clamp(-1, 1).float()
TEACHER = Gaussian(0.2, 0.5).denoise
STEADY = ConsistencyTraining(
    times=Grid(Constant(n=12)), distance=L1(), weight=InverseGap(), target=ConstantDecay(mu=0.9)
)
GROWING = dataclasses.replace(
    STEADY, times=Grid(Doubling(4, 64), LognormalIntervals()), distance=PseudoHuber(c=0.1)
)
ROUNDS = ProgressiveDistillation(rounds=Halving(2, 8))


class Function(nn.Module):
    """A consistency function of a small network, or a denoiser."""

    def __init__(self, seed=0, dropout=0.0, diffusion=None):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(8, 1, 3, padding=1)
            )
        self.diffusion, self.labels = diffusion or Diffusion(), []

    def forward(self, x_t, t, *labels):
        self.labels += labels
        return precondition(self.diffusion.scalings, lambda x, time: self.network(x), x_t, t)


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def drawn(method, step, total, diffusion):
    """The seed of the masks, then times, then noise: all of the generator."""
    generator = seeded()
    torch.randint(2**62, (), generator=generator)
    uniforms = torch.rand(len(X), generator=generator)
    noise = torch.randn(X.shape, generator=generator)
    return *method.times(uniforms, step, total, diffusion), noise


def at(t, noise):
    return X + per_sample(t, X) * noise


@pytest.mark.parametrize(("method", "step", "total"), [(STEADY, 0, None), (GROWING, 0, 90), (GROWING, 7, 9)])
def test_the_loss_of_consistency_training_is_algorithm_3(method, step, total):
    f, target = Function(0), Function(1)
    loss = training_loss(method, f, X, step=step, total_steps=total, target=target, generator=seeded())
    t, s, noise = drawn(method, step, total or 1, f.diffusion)
    distance = method.distance(f(at(t, noise), t), target(at(s, noise), s))
    assert loss.shape == (6,)
    torch.testing.assert_close(loss, distance / (t - s))
    loss.mean().backward()
    assert all(parameter.grad is None for parameter in target.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in f.parameters())


def test_the_curriculum_changes_the_loss():
    f = Function()
    early, late = (
        training_loss(GROWING, f, X, step=step, total_steps=90, generator=seeded()) for step in (0, 89)
    )
    assert not torch.allclose(early, late)


@pytest.mark.parametrize(("solver", "step"), [("euler", euler_step), ("heun", heun_step)])
def test_the_loss_of_distillation_is_algorithm_2(solver, step):
    method, f = ConsistencyDistillation(solver=solver, distance=L1()), Function()
    loss = training_loss(method, f, X, teacher=TEACHER, generator=seeded())
    t, s, noise = drawn(method, 0, 1, f.diffusion)
    aim = f(step(TEACHER, at(t, noise), t, s), s)
    torch.testing.assert_close(loss, L1()(f(at(t, noise), t), aim))


def test_the_loss_of_a_denoiser_is_against_the_clean_image():
    f, method = Function(diffusion=Diffusion(boundary="none")), Denoising()
    loss = training_loss(method, f, X, generator=seeded())
    t, _, noise = drawn(method, 0, 1, f.diffusion)
    weight = (t**2 + 0.25) / (0.5 * t) ** 2
    torch.testing.assert_close(loss, weight * (f(at(t, noise), t) - X).square().mean((1, 2, 3)))


def test_progressive_distillation_takes_the_round_of_the_step():
    f = Function(diffusion=Diffusion(boundary="none"))
    loss = training_loss(ROUNDS, f, X, step=99, total_steps=100, teacher=TEACHER, generator=seeded())
    t, s, noise = drawn(ROUNDS, 99, 100, f.diffusion)
    assert set(s.tolist()) <= set(f.diffusion.grid(3).float().tolist()), "two steps in the last round"
    middle = ((t.double() ** (1 / 7) + s.double() ** (1 / 7)) / 2).pow(7).float()
    x_s = euler_step(TEACHER, euler_step(TEACHER, at(t, noise), t, middle), middle, s)
    one = per_sample(s / t, X)
    aim = (x_s - one * at(t, noise)) / (1 - one)
    weight = (t**-2).clamp(min=1)
    wanted = weight * (f(at(t, noise), t) - aim).square().mean((1, 2, 3))
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-5)


def test_times_are_those_of_the_functions_noise_levels():
    f = Function(diffusion=Diffusion(t_min=0.01, t_max=9.0, rho=3.0))
    t, s, noise = drawn(STEADY, 0, 1, f.diffusion)
    assert t.max() <= 9
    loss = training_loss(STEADY, f, X, generator=seeded())
    torch.testing.assert_close(loss, L1()(f(at(t, noise), t), f(at(s, noise), s)) / (t - s))


@pytest.mark.parametrize("method", [ConsistencyDistillation(), ROUNDS])
def test_a_missing_teacher_is_said(method):
    with pytest.raises(ValueError, match=f"{type(method).__name__} needs a teacher: give teacher="):
        training_loss(method, Function(), X, total_steps=10)


@pytest.mark.parametrize(
    "method",
    [
        GROWING,
        dataclasses.replace(GROWING, target=AdaptiveDecay()),
        dataclasses.replace(STEADY, times=Tuned()),
        ROUNDS,
    ],
)
def test_a_missing_number_of_steps_is_said_where_it_matters(method):
    with pytest.raises(ValueError, match="changes with the steps: give total_steps="):
        training_loss(method, Function(), X, teacher=TEACHER)
    assert torch.isfinite(training_loss(method, Function(), X, teacher=TEACHER, total_steps=10)).all()


@pytest.mark.parametrize("method", [STEADY, ProgressiveDistillation(rounds=Halving(2, 2))])
def test_where_nothing_changes_the_number_of_steps_plays_no_part(method):
    options = {"teacher": TEACHER} if method.needs_teacher else {}
    losses = [
        training_loss(method, Function(), X, step=step, total_steps=total, generator=seeded(), **options)
        for step, total in [(0, None), (7, None), (7, 10)]
    ]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])


class SameTimes:
    """Pairs of equal times, of which equal networks with equal masks have no loss."""

    scales = None

    def __call__(self, uniforms, step, total_steps, levels):
        t = 1 + uniforms
        return t, t

    def gauges(self, step, total_steps):
        return {}


def test_student_and_target_see_the_same_dropout_mask():
    method = ConsistencyTraining(times=SameTimes(), distance=L1(), target=ConstantDecay(mu=0.5))
    f, target = Function(dropout=0.5), Function(dropout=0.5)
    assert training_loss(method, f, X, target=target).tolist() == [0] * 6
    assert training_loss(method, f, X).tolist() == [0] * 6
    without = Function(dropout=0.0)
    assert (training_loss(method, f, X, target=without) > 0).all(), "there is a mask"


def test_a_generator_makes_it_repeatable_and_is_the_only_source():
    f = Function(dropout=0.5)
    before = torch.get_rng_state()
    first = training_loss(STEADY, f, X, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before), "PyTorch's own numbers are left alone"
    torch.manual_seed(77)
    assert torch.equal(first, training_loss(STEADY, f, X, generator=seeded()))
    assert not torch.allclose(first, training_loss(STEADY, f, X, generator=seeded(6)))
    generator = seeded()
    assert torch.equal(first, training_loss(STEADY, f, X, generator=generator))
    assert not torch.allclose(first, training_loss(STEADY, f, X, generator=generator)), "it goes on"


def test_without_a_generator_pytorchs_seed_decides():
    f = Function(dropout=0.5)
    with torch.random.fork_rng(devices=[]):
        losses = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            losses.append(training_loss(STEADY, f, X))
        again = training_loss(STEADY, f, X)
    assert torch.equal(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])
    assert not torch.allclose(losses[2], again), "the next step draws anew"


def test_labels_go_to_student_target_and_teacher():
    f, target, labels = Function(), Function(1), torch.arange(6)
    seen = []

    def teacher(x_t, t, given):
        seen.append(given)
        return TEACHER(x_t, t)

    method = ConsistencyDistillation(solver="euler")
    training_loss(method, f, X, target=target, teacher=teacher, labels=labels)
    for given in (*f.labels, *target.labels, *seen):
        assert torch.equal(given, labels)
    assert [len(f.labels), len(target.labels), len(seen)] == [1, 1, 1]


def test_a_method_is_its_own_loss():
    f = Function()
    direct = training_loss(GROWING, f, X, step=3, total_steps=9, generator=seeded())
    assert torch.equal(GROWING(f, X, step=3, total_steps=9, generator=seeded()), direct)


def test_the_precision_of_the_images_is_kept():
    f = Function().double()
    assert training_loss(STEADY, f, X.double(), generator=seeded()).dtype == torch.float64
