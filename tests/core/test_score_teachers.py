"""Distillation of exact teachers of Gaussian data: exact students of every column have no loss.

A student's network is the inverse of its preconditioning at the exact function, so that the scalings of the
column, and of its boundary condition, are in every loss.
"""

import math

import pytest
import torch

from cm_ray.core.continuous import SimplifiedDistillation
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.draw import Draw
from cm_ray.core.methods import ConsistencyDistillation, ConsistencyTraining, ProgressiveDistillation
from cm_ray.core.precondition import EDM, VE, VP, TrigFlow, precondition
from cm_ray.core.score_columns import NCSN, SubVP
from cm_ray.core.solvers import euler_step, heun_step
from cm_ray.core.times import karras_times
from cm_ray.core.types import per_sample
from cm_ray.errors import SettingError
from tests.core.gaussian import Gaussian, normals

DATA, ROWS = Gaussian(0.2, 0.4), 8
COLUMNS = [EDM(sigma_data=0.4), TrigFlow(sigma_data=0.4), VE(), VP(), SubVP(), NCSN()]
PAIRS = [(column, column) for column in COLUMNS]
PAIRS += [
    (COLUMNS[student], COLUMNS[teacher]) for student, teacher in ((0, 3), (1, 4), (3, 0), (4, 2), (2, 5))
]
GRID = karras_times(9, t_min=0.02, t_max=10.0).double()


def name(column):
    return type(column).__name__


def diffusion(column, boundary):
    return Diffusion(column=column, boundary=boundary, t_min=0.02, t_max=10.0)


def under(column, boundary, function):
    """A function of (x_t, t) as the model of a network under a column."""
    scalings = diffusion(column, boundary).scalings

    def model(x_t, t):
        skip, out = (per_sample(each(t), x_t) for each in (scalings.c_skip, scalings.c_out))
        safe = torch.where(out == 0, 1.0, out)
        return precondition(scalings, lambda x, time: (function(x_t, t) - skip * x_t) / safe, x_t, t)

    return model


def drawn(column, boundary, index):
    t, s = GRID[index + 1].repeat(ROWS), GRID[index].repeat(ROWS)
    x, noise = DATA.draw(3, ROWS, 1, 4, 4), normals(4, ROWS, 1, 4, 4)
    return Draw(x, noise, x + per_sample(t, x) * noise, t, s, diffusion(column, boundary), 10**6)


def solved(solver):
    """Return where a solver on the grid arrives at t_min from x_t: the consistency function of CD."""

    def function(x_t, t):
        index = int((GRID - t[0]).abs().argmin())
        for number in range(index, 0, -1):
            x_t = solver(DATA.denoise, x_t, GRID[number].expand(len(t)), GRID[number - 1].expand(len(t)))
        return x_t

    return function


def losses(method, student, draw, teacher):
    aim = method.aim(draw, student, teacher)
    return method.loss(student, aim, draw, method.distance)


@pytest.mark.parametrize(("column", "teacher_column"), PAIRS, ids=name)
def test_consistency_distillation_has_the_solvers_function_as_its_fixed_point(column, teacher_column):
    teacher = under(teacher_column, "none", DATA.denoise)
    for solver, step in (("heun", heun_step), ("euler", euler_step)):
        method, student = ConsistencyDistillation(solver=solver), under(column, "skip", solved(step))
        for index in (0, 3, 7):
            assert losses(method, student, drawn(column, "skip", index), teacher).max() < 1e-20
        other = under(
            column, "skip", lambda x, t, step=step: solved(step)(x, t) + 0.01 * t.log().reshape(-1, 1, 1, 1)
        )
        assert losses(method, other, drawn(column, "skip", 3), teacher).min() > 1e-6
    x = DATA.draw(5, 2, 1, 4, 4)
    torch.testing.assert_close(student(x, torch.full((2,), 0.02, dtype=torch.float64)), x)


@pytest.mark.parametrize(("column", "teacher_column"), PAIRS, ids=name)
def test_a_student_of_progressive_distillation_makes_two_steps_in_one(column, teacher_column):
    teacher, method = under(teacher_column, "none", DATA.denoise), ProgressiveDistillation()
    for index in (0, 4, 7):
        draw = drawn(column, "none", index)
        aim = method.aim(draw, None, teacher)
        student = under(column, "none", lambda x_t, t, aim=aim: aim)
        assert losses(method, student, draw, teacher).max() < 1e-20
        middle = ((draw.t ** (1 / 7) + draw.s ** (1 / 7)) / 2) ** 7
        half = euler_step(DATA.denoise, draw.x_t, draw.t, middle)
        twice = euler_step(DATA.denoise, half, middle, draw.s)
        torch.testing.assert_close(euler_step(student, draw.x_t, draw.t, draw.s), twice)


@pytest.mark.parametrize(("column", "teacher_column"), PAIRS, ids=name)
def test_the_flow_of_the_teacher_has_no_tangent(column, teacher_column):
    """sCD, also under columns without a sigma_data, by that of the method."""
    method = SimplifiedDistillation(warmup=0, sigma_data=0.4)
    teacher = under(teacher_column, "none", DATA.denoise)
    flow = lambda x_t, t: DATA.flow(x_t, t, torch.zeros_like(t))  # noqa: E731
    student = under(column, "zero", flow)
    slow = under(column, "zero", lambda x_t, t: DATA.mean + 0.9 * (flow(x_t, t) - DATA.mean))
    for index in (0, 3, 7):
        draw = drawn(column, "zero", index)
        assert losses(method, student, draw, teacher).max() < 1e-16
        scaled = losses(method, lambda x, t: DATA.denoise(x, t), draw, teacher)
        assert scaled.min() > 1e-6 or index == 0
    torch.testing.assert_close(
        losses(method, slow, drawn(column, "zero", 3), teacher),
        losses(method, slow, drawn(EDM(sigma_data=0.4), "zero", 3), DATA.denoise),
    )


def test_sigma_data_is_the_columns_where_the_method_has_none():
    draw = drawn(TrigFlow(sigma_data=0.4), "zero", 3)
    student = lambda x, t: 0.9 * DATA.denoise(x, t)  # noqa: E731
    given = losses(SimplifiedDistillation(sigma_data=0.4, warmup=0), student, draw, DATA.denoise)
    assert torch.equal(losses(SimplifiedDistillation(warmup=0), student, draw, DATA.denoise), given)
    with pytest.raises(SettingError, match="must be trigflow or edm, or set the method's sigma_data"):
        losses(SimplifiedDistillation(), student, drawn(VP(), "zero", 3), DATA.denoise)
    with pytest.raises(SettingError, match="sigma_data must be positive, or 0"):
        SimplifiedDistillation(sigma_data=-1.0)


@pytest.mark.parametrize("column", COLUMNS, ids=name)
def test_easy_consistency_tuning_begins_with_the_weights_of_a_denoiser(column):
    """ECT starts with s at t_min, where f is x: the aim is nearly the clean image, as of a denoiser.

    The student, a denoiser's network under the boundary condition, is near that denoiser at large t.
    """
    network = under(column, "none", DATA.denoise)
    draw = drawn(column, "skip", 7)
    scalings, plain = diffusion(column, "skip").scalings, diffusion(column, "none").scalings

    def student(x_t, t):
        skip, out = (per_sample(each(t), x_t) for each in (plain.c_skip, plain.c_out))
        return precondition(scalings, lambda x, time: (network(x_t, t) - skip * x_t) / out, x_t, t)

    draw = Draw(draw.x, draw.noise, draw.x_t, draw.t, torch.full_like(draw.t, 0.02), draw.diffusion)
    aim = ConsistencyTraining().aim(draw, student, None)
    torch.testing.assert_close(aim, draw.x + 0.02 * draw.noise)
    difference = student(draw.x_t, draw.t) - DATA.denoise(draw.x_t, draw.t)
    assert difference.abs().max() < 0.01 * math.sqrt(1 + float(draw.t[0]) ** 2)
