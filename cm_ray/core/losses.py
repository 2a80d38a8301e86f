"""What is minimised."""

from __future__ import annotations

from cm_ray.core.types import Distance, Images, Times


def consistency_loss(f_t: Images, f_s: Images, weight: Times, distance: Distance) -> Times:
    """Per-sample consistency loss, weight · d(f_t, f_s).  Song et al. 2023, Eq. 7 and Eq. 10.

    f_t: student(x_t, t), carries the gradient (b, c, h, w).  f_s: target(x_s, s), detached here.
    weight: lambda(t_n) (b,).  Returns (b,); the caller averages.  Raises ValueError on unequal shapes.
    """
    return weight * distance(f_t, f_s.detach())
