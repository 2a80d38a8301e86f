"""Guidance: an estimate that is drawn away from a weaker one, D_w = D_weak + w (D - D_weak).

With the same model without its class as the weaker one it is classifier-free guidance (Ho & Salimans 2022),
whose score is that of p(x)^(1-w) p(x|c)^w; with a worse model of the same class, autoguidance (Karras et al.
2024). w = 1 is no guidance, and w = 0 the weaker estimate, both to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cm_ray.core.types import Images, Labels, Times, check_same_shape, per_sample

if TYPE_CHECKING:
    from torch import Tensor

UNGUIDED = 1.0
"""The guidance scale of a model by itself."""
NULL_LABEL = -1
"""The label of the null class, of networks that have one."""


def guided(estimate: Images, weaker: Images, scale: float | Times) -> Images:
    """Return weaker + scale (estimate - weaker) (b, c, h, w).

    scale: a number, or one for each sample (b,). Raises ValueError on unequal shapes.
    """
    check_same_shape(estimate, weaker)
    weight: float | Tensor = scale if isinstance(scale, float) else per_sample(scale, estimate)
    return torch.lerp(weaker, estimate, weight)


def without_class(labels: Labels) -> Labels:
    """Return the label of the null class for each sample (b,)."""
    return torch.full_like(labels, NULL_LABEL)
