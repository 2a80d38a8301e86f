"""Sliced score matching on Gaussian data in closed form: its mean is the loss of denoising score matching."""

import math

import pytest
import torch

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.draw import Draw
from cm_ray.core.methods import Denoising
from cm_ray.core.noise_times import Geometric
from cm_ray.core.precondition import VE
from cm_ray.core.sliced import SlicedScoreMatching
from cm_ray.core.weights import SNR, UniformWeight

SHAPE = (1, 2, 2)
COVARIANCE = torch.tensor(
    [[0.5, 0.2, 0.0, 0.1], [0.2, 0.4, 0.1, 0.0], [0.0, 0.1, 0.3, 0.05], [0.1, 0.0, 0.05, 0.6]],
    dtype=torch.float64,
)
DIFFUSION = Diffusion(column=VE(), boundary="none", t_min=0.02, t_max=2.0)
KINDS = [True, False]


class Linear:
    """The denoiser D(x_t, t) = A x_t, whose loss is known in closed form."""

    diffusion = DIFFUSION

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, x_t, t):
        return (x_t.flatten(1) @ self.matrix.T).reshape(x_t.shape)


def drawn(t, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.linalg.cholesky(COVARIANCE)
    x = (torch.randn(count, 4, dtype=torch.float64, generator=generator) @ root.T).reshape(-1, *SHAPE)
    noise = torch.randn(count, *SHAPE, dtype=torch.float64, generator=generator)
    signs = 2.0 * torch.randint(2, noise.shape, generator=generator).double() - 1
    times = torch.full((count,), t, dtype=torch.float64)
    return Draw(x, noise, x + t * noise, times, torch.zeros_like(times), DIFFUSION, 0, signs)


def optimum(t):
    return torch.linalg.solve(COVARIANCE + t**2 * torch.eye(4, dtype=torch.float64), COVARIANCE)


def exact_loss(matrix, t):
    """E|A x_t - x|^2 per pixel: denoising score matching, without a draw."""
    noisy = COVARIANCE + t**2 * torch.eye(4, dtype=torch.float64)
    return (matrix @ noisy @ matrix.T - 2 * matrix @ COVARIANCE + COVARIANCE).trace() / 4


def loss(method, matrix, draw):
    student = Linear(matrix)
    return method.loss(student, method.aim(draw, None, None), draw, method.distance)


@pytest.mark.parametrize("reduced", KINDS)
def test_the_mean_loss_and_its_gradient_are_those_of_exact_score_matching(reduced):
    """The loss is within 4 standard errors of the closed form, at a matrix that is not the optimum."""
    method = SlicedScoreMatching(weight=UniformWeight(), variance_reduced=reduced)
    t, shift = 0.7, torch.arange(16, dtype=torch.float64).reshape(4, 4) / 40
    draw = drawn(t, 20_000)
    matrix = (optimum(t) + shift).requires_grad_()
    wanted = exact_loss(matrix, t)
    (gradient,) = torch.autograd.grad(wanted, matrix)
    losses = loss(method, matrix, draw)
    assert abs(losses.mean() - wanted) < 4 * losses.std() / math.sqrt(len(losses))
    along = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    slopes = torch.autograd.functional.jvp(lambda each: loss(method, each, draw), matrix, along)[1]
    assert abs(slopes.mean() - (gradient * along).sum()) < 4 * slopes.std() / math.sqrt(len(slopes))
    (whole,) = torch.autograd.grad(loss(method, matrix, draw).mean(), matrix)
    assert float((whole * along).sum()) == pytest.approx(float(slopes.mean()), rel=1e-9)


def test_the_variance_is_reduced_by_the_exact_norm():
    draw, matrix = drawn(0.7, 5000), optimum(0.7)
    reduced, plain = (loss(SlicedScoreMatching(variance_reduced=each), matrix, draw).std() for each in KINDS)
    assert reduced < 0.8 * plain


@pytest.mark.parametrize("reduced", KINDS)
def test_its_optimum_is_that_of_denoising_score_matching(reduced):
    """The quadratic loss in the matrix is minimised by Newton's step: both end at the exact score."""
    t, draw = 0.5, drawn(0.5, 40_000)
    start = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)

    def reached(method):
        def mean(matrix):
            return loss(method, matrix, draw).mean()

        (gradient,) = torch.autograd.grad(mean(start), start)
        hessian = torch.autograd.functional.hessian(mean, start).reshape(16, 16)
        return -torch.linalg.solve(hessian, gradient.flatten()).reshape(4, 4)

    sliced = reached(SlicedScoreMatching(weight=SNR(), variance_reduced=reduced))
    denoised = reached(Denoising(weight=SNR()))
    torch.testing.assert_close(denoised, optimum(t), atol=0.02, rtol=0)
    torch.testing.assert_close(sliced, optimum(t), atol=0.02 if reduced else 0.06, rtol=0)


def test_a_loop_of_ones_own_reaches_the_exact_score():
    """`training_loss` draws the directions; the generator decides them."""
    method, matrix = SlicedScoreMatching(times=Geometric(2), weight=UniformWeight()), optimum(1.0)
    draw = drawn(1.0, 8)
    values = [
        method(Linear(matrix), draw.x, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    ]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    with pytest.raises(ValueError, match="needs the direction"):
        loss(method, matrix, Draw(draw.x, draw.noise, draw.x_t, draw.t, draw.s, DIFFUSION))
