"""One step of the probability flow ODE dx/dt = (x - D(x, t))/t, from t to s.

With a teacher as D this is the empirical PF ODE of Song et al. 2023, Eq. 6 and appendix; with
`data_denoiser` it is the ODE of one image, whose trajectories are straight lines.
"""

from __future__ import annotations

from typing import Protocol

from cm_ray.core.types import Denoise, Images, Times, check_same_shape, per_sample


class Solver(Protocol):
    """A one-step ODE solver Phi, which maps images at t to images at s; each sample has its own times."""

    def __call__(self, denoise: Denoise, x_t: Images, t: Times, s: Times, /) -> Images:
        """Return x_s (b, c, h, w)."""
        ...


def slope(denoise: Denoise, x_t: Images, t: Times) -> Images:
    """Return dx/dt = (x_t - D(x_t, t))/t (b, c, h, w).  Karras et al. 2022, Eq. 3 with sigma(t) = t."""
    estimate = denoise(x_t, t)
    check_same_shape(estimate, x_t)
    return (x_t - estimate) / per_sample(t, x_t)


def euler_step(denoise: Denoise, x_t: Images, t: Times, s: Times) -> Images:
    """Return x_t + (s - t) dx/dt: first order, one evaluation."""
    return x_t + per_sample(s - t, x_t) * slope(denoise, x_t, t)


def heun_step(denoise: Denoise, x_t: Images, t: Times, s: Times) -> Images:
    """Return x_t + (s - t) times the mean of the slopes at t and at Euler's s > 0.

    Second order, two evaluations.  Song et al. 2023, appendix; Karras et al. 2022, Algorithm 1.
    """
    first = slope(denoise, x_t, t)
    x_s = x_t + per_sample(s - t, x_t) * first
    return x_t + per_sample(s - t, x_t) * (0.5 * (first + slope(denoise, x_s, s)))


def data_denoiser(x: Images) -> Denoise:
    """Return the denoiser D = x of a data set with a single image, for each sample.

    It gives the ODE of consistency training: an Euler step, or a Heun step, from x + t · noise leads to
    x + s · noise.
    """
    return lambda x_t, t: x
