"""The student's targets are tested on closed forms of Gaussian data, theorem 2, two steps in one."""

import numpy as np
import pytest
import torch

from cm_ray.core import methods
from cm_ray.core.distance import L1, L2, Norm, PseudoHuber
from cm_ray.core.loss import regression_loss
from cm_ray.core.methods import (
    ConsistencyDistillation,
    ConsistencyTraining,
    Denoising,
    Draw,
    ProgressiveDistillation,
    euler_to_denoised,
    middle_time,
)
from cm_ray.core.pairs import perturb
from cm_ray.core.precondition import EDM, Boundary, precondition
from cm_ray.core.solvers import data_denoiser, euler_step
from cm_ray.core.times import NoiseLevels, karras_times
from cm_ray.core.types import per_sample
from cm_ray.core.weights import InverseGap, UniformWeight
from cm_ray.sampling.sampling_steps import euler
from tests.core.gaussian import Gaussian, Mixture, normals, order

DATA, MIXTURE = Gaussian(0.3, 0.5), Mixture()
DISTANCES = [L1(), L2(), Norm(), PseudoHuber()]
EULER, HEUN = (ConsistencyDistillation(solver=solver) for solver in ("euler", "heun"))


def draw_on_grid(data, n, batch=64):
    """The same images and noise at all pairs of neighbours on the grid of n intervals."""
    grid = karras_times(n + 1)
    t, s = grid[1:].repeat_interleave(batch), grid[:-1].repeat_interleave(batch)
    x, noise = (
        images.repeat(n, 1, 1, 1) for images in (data.draw(1, batch, 1, 1, 1), normals(2, batch, 1, 1, 1))
    )
    return Draw(x, noise, perturb(x, noise, t), t, s)


def exact_solver(denoise, x_t, t, s):
    return DATA.flow(x_t, t, s)


def distillation_loss(method, n, weight, distance):
    draw, f = draw_on_grid(DATA, n), DATA.consistency()
    aim = method.aim(draw, f, DATA.denoise)
    return regression_loss(f(draw.x_t, draw.t), aim, weight(draw.t, draw.s, EDM()), distance)


def test_the_aim_of_denoising_is_the_clean_image():
    draw = draw_on_grid(DATA, 3)
    assert Denoising().aim(draw, DATA.denoise, DATA.denoise) is draw.x


@pytest.mark.parametrize("n", [2, 17])
@pytest.mark.parametrize("distance", [L1(), L2(), Norm()])
def test_with_an_exact_solver_the_consistency_function_has_no_distillation_loss(n, distance, monkeypatch):
    monkeypatch.setattr(methods, "heun_step", exact_solver)
    assert distillation_loss(HEUN, n, UniformWeight(), distance).max() < 1e-14


@pytest.mark.parametrize(("method", "p"), [(EULER, 1), (HEUN, 2)])
def test_the_distillation_loss_falls_at_the_solvers_order(method, p):
    """An error per time: lambda = 1/(t - s) divides the solver's local error, of order p + 1, by its step."""
    counts = [16, 32, 64, 128]
    losses = [distillation_loss(method, n, InverseGap(), L1()).mean() for n in counts]
    assert order(counts, losses) == pytest.approx(p, abs=0.3)


@pytest.mark.parametrize(("method", "p"), [(EULER, 1), (HEUN, 2)])
@pytest.mark.parametrize(("distance", "power"), [(L1(), 1), (Norm(), 1), (L2(), 2)])
def test_the_unweighted_distillation_loss_falls_at_the_order_of_a_local_error(method, p, distance, power):
    counts = [16, 32, 64, 128]
    losses = [distillation_loss(method, n, UniformWeight(), distance).mean() for n in counts]
    assert order(counts, losses) == pytest.approx(power * (p + 1), abs=0.3)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("location", [0.0, -0.7])
def test_a_point_mass_has_no_training_loss(location, distance):
    """All noise leads back to the one image: its consistency function is consistent on every pair."""
    point = Gaussian(location, 0.0)
    draw, f = draw_on_grid(point, 17), point.consistency()
    aim = ConsistencyTraining().aim(draw, f, point.denoise)
    loss = regression_loss(f(draw.x_t, draw.t), aim, UniformWeight()(draw.t, draw.s, EDM()), distance)
    assert loss.abs().max() < 1e-12


def test_a_point_mass_makes_training_and_distillation_one():
    draw, point = draw_on_grid(Gaussian(0.4, 0.0), 17), Gaussian(0.4, 0.0)
    f = Gaussian(0.1, 0.5).consistency()  # anything
    training = ConsistencyTraining().aim(draw, f, point.denoise)
    for method in (EULER, HEUN):
        distillation = method.aim(draw, f, point.denoise)
        torch.testing.assert_close(training, distillation, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", [EULER, HEUN])
def test_training_is_distillation_with_the_data_as_teacher(method):
    draw, f = draw_on_grid(DATA, 17), DATA.consistency()
    training = ConsistencyTraining().aim(draw, f, DATA.denoise)
    distillation = method.aim(draw, f, data_denoiser(draw.x))
    torch.testing.assert_close(training, distillation, rtol=1e-12, atol=1e-12)


def test_training_needs_no_teacher_and_asks_the_target_at_s():
    draw, seen = draw_on_grid(DATA, 3), []

    def target(x_s, s):
        seen.append((x_s, s))
        return x_s

    aim = ConsistencyTraining().aim(draw, target, None)
    assert torch.equal(aim, draw.x + per_sample(draw.s, draw.x) * draw.noise)
    assert torch.equal(seen[0][1], draw.s)


# Theorem 2 of Song et al. 2023. Expectations are sums over Gauss-Hermite nodes of (component, x, noise), so
# that no Monte Carlo error hides how the difference vanishes.


def quadrature(data, nodes=32):
    """Nodes x, noise (k, 1, 1, 1) and weights (k,) of the expectation over data and noise."""
    z, w = (torch.tensor(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    w = w / w.sum()
    x = torch.cat([mean + data.sigma * z for mean in data.means])
    weights = torch.cat([share * w for share in data.weights])[:, None] * w
    return (
        x.repeat_interleave(nodes)[:, None, None, None],
        z.repeat(len(x))[:, None, None, None],
        weights.flatten(),
    )


def tanh_network(parameters):
    """Eight hidden units of the image and the time: curved in x, or the theorem would be trivial."""
    a, b, c, out = parameters
    return lambda x, time: ((a * x[..., None] + b * per_sample(time, x)[..., None] + c).tanh() * out).sum(-1)


def linear_network(parameters):
    a, b, c, out = (part[0] for part in parameters)
    return lambda x, time: a * x + b * per_sample(time, x) + c + out


def expected_gradient(method, n, distance, *, network=tanh_network, teacher=None, data=MIXTURE):
    """The gradient of the expected loss with n intervals, target = student, uniform weight and proposal."""
    parameters = [part.requires_grad_() for part in normals(3, 4, 8)]
    x, noise, weights = quadrature(data)
    grid, k = karras_times(n + 1), len(x)
    t, s = grid[1:].repeat_interleave(k), grid[:-1].repeat_interleave(k)
    x, noise = x.repeat(n, 1, 1, 1), noise.repeat(n, 1, 1, 1)
    draw = Draw(x, noise, perturb(x, noise, t), t, s)

    def student(x_t, t):
        return precondition(Boundary(EDM(0.5, 1.0)), network(parameters), x_t, t)

    with torch.no_grad():
        aim = method.aim(draw, student, teacher or data.denoise)
    loss = regression_loss(student(draw.x_t, t), aim, UniformWeight()(t, s, EDM()), distance)
    return torch.cat(torch.autograd.grad((weights.repeat(n) * loss).sum() / n, parameters))


TRAINING, DISTILLATION = ConsistencyTraining(), EULER


@pytest.mark.parametrize("distance", [L2(), PseudoHuber(0.5)])
def test_gradients_of_training_and_distillation_agree_as_the_grid_grows(distance):
    """Theorem 2: the difference is o(dt); for twice differentiable distances and targets it is O(dt^2).

    E[x_s | x_t] is Euler's step, so that the difference's first order in x_s vanishes on average, and its
    second is the variance of x_s given x_t, (t - s)^2 Var(noise | x_t). The gradients themselves are O(dt),
    as f(x_t, t) - f(x_s, s) is: relative to them, the difference falls at order 1.
    """
    counts = [16, 32, 64, 128]
    pairs = [[expected_gradient(which, n, distance) for which in (TRAINING, DISTILLATION)] for n in counts]
    difference = [(training - distillation).norm() for training, distillation in pairs]
    gradient = [distillation.norm() for _, distillation in pairs]
    assert order(counts, difference) == pytest.approx(2, abs=0.3)
    assert order(counts, gradient) == pytest.approx(1, abs=0.3)
    assert difference[-1] < 0.02 * gradient[-1]


def test_gradients_differ_for_ever_when_the_teacher_is_wrong():
    """The control: with another data set's teacher the difference is of the gradients' own order."""
    counts, wrong = [16, 32, 64, 128], Gaussian(0.5, 0.5).denoise
    training = [expected_gradient(TRAINING, n, L2()) for n in counts]
    distillation = [expected_gradient(DISTILLATION, n, L2(), teacher=wrong) for n in counts]
    difference = [(a - b).norm() for a, b in zip(training, distillation, strict=True)]
    assert order(counts, difference) == pytest.approx(1, abs=0.3)
    assert difference[-1] > 0.1 * training[-1].norm()


@pytest.mark.parametrize("n", [1, 2, 16])
def test_gradients_of_linear_students_and_squares_agree_on_every_grid(n):
    """The gradient is linear in x_s then, and only its mean counts; the quadrature is exact, too."""
    one = Mixture((1.0,), (0.3,), 0.5)
    training, distillation = (
        expected_gradient(which, n, L2(), network=linear_network, data=one)
        for which in (TRAINING, DISTILLATION)
    )
    torch.testing.assert_close(training, distillation, rtol=1e-9, atol=1e-12)
    assert training.norm() > 1e-3


def teachers_two_steps(x_t, t, middle, s, teacher):
    return euler_step(teacher, euler_step(teacher, x_t, t, middle), middle, s)


@pytest.mark.parametrize("data", [DATA, MIXTURE])
def test_one_step_of_a_perfect_student_is_two_of_the_teachers(data):
    draw = draw_on_grid(DATA, 9)
    aim = ProgressiveDistillation().aim(draw, None, data.denoise)
    one = euler_step(lambda x_t, t: aim, draw.x_t, draw.t, draw.s)
    two = teachers_two_steps(draw.x_t, draw.t, middle_time(draw.t, draw.s, 7.0), draw.s, data.denoise)
    torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rho", [7.0, 3.0])
@pytest.mark.parametrize("n", [1, 4, 32])
def test_the_teachers_grid_has_twice_as_many_intervals(n, rho):
    coarse, fine = karras_times(n + 1, rho=rho), karras_times(2 * n + 1, rho=rho)
    torch.testing.assert_close(fine[::2], coarse)
    middle = middle_time(coarse[1:], coarse[:-1], rho)
    torch.testing.assert_close(fine[1::2], middle, rtol=1e-12, atol=0)
    assert middle_time(coarse[1:].float(), coarse[:-1].float(), rho).dtype == torch.float32


@pytest.mark.parametrize("rho", [7.0, 3.0])
def test_progressive_distillation_halves_on_the_curve_that_the_times_are_drawn_from(rho):
    seen, levels = [], NoiseLevels(rho=rho)
    grid = levels.grid(5)
    x_t = normals(8, 4, 1, 1, 1)

    def teacher(x, time):
        seen.append(time)
        return DATA.denoise(x, time)

    ProgressiveDistillation().aim(Draw(None, None, x_t, grid[1:], grid[:-1], levels), None, teacher)
    torch.testing.assert_close(torch.stack(seen), torch.stack([grid[1:], levels.grid(9)[1::2]]))


def test_a_round_of_distillation_halves_the_steps_of_the_sampler():
    """Samples of the perfect student in n steps are those of its teacher in 2 n."""
    n, data, z = 8, MIXTURE, normals(4, 32, 1, 1, 1)
    grid = karras_times(n + 1)

    def student(x_t, t):
        s = grid[torch.searchsorted(grid, t) - 1]
        return ProgressiveDistillation().aim(Draw(None, None, x_t, t, s), None, data.denoise)

    *_, one = euler(student, lambda i: z, grid.tolist())
    *_, two = euler(data.denoise, lambda i: z, karras_times(2 * n + 1).tolist())
    torch.testing.assert_close(one.x, two.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("data", [Gaussian(0.3, 0.0), Gaussian(-1.0, 0.0)])
def test_where_two_steps_are_one_the_aim_is_the_teachers_answer(data):
    draw = draw_on_grid(DATA, 9)
    aim = ProgressiveDistillation().aim(draw, None, data.denoise)
    torch.testing.assert_close(aim, data.denoise(draw.x_t, draw.t), rtol=1e-9, atol=1e-9)


def test_euler_to_denoised_and_euler_step_are_inverse():
    t = torch.tensor([80.0, 1.0, 0.3], dtype=torch.float64)
    x_t, estimate, x_s = (normals(seed, 3, 1, 4, 4) for seed in (5, 6, 7))
    for s in (0.9 * t, 0.01 * t, 0 * t):
        stepped = euler_step(lambda x_t, t: estimate, x_t, t, s)
        torch.testing.assert_close(euler_to_denoised(x_t, t, stepped, s), estimate)
        answer = euler_to_denoised(x_t, t, x_s, s)
        torch.testing.assert_close(euler_step(lambda x_t, t, d=answer: d, x_t, t, s), x_s)


def test_unequal_shapes_are_refused():
    draw = draw_on_grid(DATA, 3)
    fewer = Draw(draw.x, draw.noise[:1], draw.x_t, draw.t, draw.s)
    with pytest.raises(ValueError, match="shapes differ"):
        ConsistencyTraining().aim(fewer, DATA.denoise, DATA.denoise)
    for method in (EULER, HEUN, ProgressiveDistillation()):
        with pytest.raises(ValueError, match="shapes differ"):
            method.aim(draw, DATA.denoise, data_denoiser(draw.x[:1]))
    with pytest.raises(ValueError, match="shapes differ"):
        euler_to_denoised(draw.x_t, draw.t, draw.x_t[:1], draw.s)
