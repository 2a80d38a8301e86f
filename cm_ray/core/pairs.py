"""Pairs (x_t, x_s) on one trajectory: the only place where training and distillation differ."""

from __future__ import annotations

from cm_ray.core.types import Images, Times, check_same_shape, per_sample


def perturb(x: Images, noise: Images, t: Times) -> Images:
    """Return x + t · noise, a draw of x_t given x (b, c, h, w).  Raises ValueError on unequal shapes."""
    check_same_shape(x, noise)
    return x + per_sample(t, x) * noise


def training_pair(x: Images, noise: Images, t: Times, s: Times) -> tuple[Images, Images]:
    """Return (x + t · noise, x + s · noise): the pair of consistency training, with the same noise.

    It is an Euler step from t to s of the PF ODE with x in the place of the teacher's denoiser.
    Song et al. 2023, Algorithm 3.
    """
    return perturb(x, noise, t), perturb(x, noise, s)
