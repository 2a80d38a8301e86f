"""The regression loss that all training methods minimise."""

from __future__ import annotations

from cm_ray.core.types import Distance, Images, Times


def regression_loss(answer: Images, aim: Images, weight: Times, distance: Distance) -> Times:
    """Per-sample loss, weight · d(answer, aim), of every method; see `cm_ray.core.methods`.

    Song et al. 2023, Eq. 7 and Eq. 10 (consistency); Karras et al. 2022, Eq. 2 (denoising, squared l2);
    Salimans & Ho 2022, Algorithm 2. answer: student(x_t, t), with gradient (b, c, h, w). aim: the regression
    target, detached here. weight: lambda (b,). Returns (b,); the caller averages.
    Raises ValueError on unequal shapes.
    """
    return weight * distance(answer, aim.detach())
