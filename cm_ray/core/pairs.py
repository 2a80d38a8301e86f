"""Pairs (x_t, x_s) on one trajectory, for consistency training and for distillation."""

from __future__ import annotations

from cm_ray.core.solvers import Solver
from cm_ray.core.types import Denoise, Images, Times, check_same_shape, per_sample


def perturb(x: Images, noise: Images, t: Times) -> Images:
    """Return x + t · noise, a draw of x_t given x (b, c, h, w).  Raises ValueError on unequal shapes."""
    check_same_shape(x, noise)
    return x + per_sample(t, x) * noise


def training_pair(x: Images, noise: Images, t: Times, s: Times) -> tuple[Images, Images]:
    """Return (x + t · noise, x + s · noise): the pair of consistency training, with the same noise.

    It equals an Euler step of the PF ODE from t to s with x as the output of the denoiser.
    Song et al. 2023, Algorithm 3.
    """
    return perturb(x, noise, t), perturb(x, noise, s)


def distillation_pair(
    teacher: Denoise, solver: Solver, x_t: Images, t: Times, s: Times
) -> tuple[Images, Images]:
    """Return (x_t, one solver step of the teacher's PF ODE from it to s).  Song et al. 2023, Algorithm 2."""
    return x_t, solver(teacher, x_t, t, s)
