"""Distances between images. LPIPS has weights and is in `cm_ray.networks.perceptual`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cm_ray.core.types import Distance, Images, Times, check_same_shape
from cm_ray.errors import require
from cm_ray.settings.choices import choice


@choice(Distance, "l1")
@dataclass(frozen=True, slots=True)
class L1:
    """Mean absolute difference per sample."""

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,). Raises ValueError on unequal shapes."""
        check_same_shape(a, b)
        return (a - b).abs().flatten(1).mean(1)


@choice(Distance, "l2")
@dataclass(frozen=True, slots=True)
class L2:
    """Mean squared difference per sample, the paper's squared l2 up to the constant 1/D."""

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,). Raises ValueError on unequal shapes."""
        check_same_shape(a, b)
        return (a - b).square().flatten(1).mean(1)


@choice(Distance, "norm")
@dataclass(frozen=True, slots=True)
class Norm:
    """|a - b|, the Euclidean norm over all pixels of a sample: pseudo-Huber with c = 0.

    Geng et al. 2024 (ECT) use it for CIFAR-10. The gradient is 0 where a = b.
    """

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,). Raises ValueError on unequal shapes."""
        check_same_shape(a, b)
        return torch.linalg.vector_norm((a - b).flatten(1), dim=1)


@choice(Distance, "adaptive-l2")
@dataclass(frozen=True, slots=True)
class AdaptiveL2:
    """|a - b|^2 / sg(|a - b|^2 + c)^p, the squared norm over all pixels of a sample, divided by a constant.

    Geng et al. 2025 (MeanFlow), section 4.3. With p = 1/2 its gradient is that of pseudo-Huber.
    """

    p: float = 1.0
    """The power p; 0 for the squared norm."""
    c: float = 1e-3
    """The constant c."""

    def __post_init__(self) -> None:
        """Raise SettingError on a negative p, or a c that is not positive."""
        require(self.p >= 0, "p", f"must not be negative, but is {self.p}")
        require(self.c > 0, "c", f"must be positive, not {self.c}")

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,). Raises ValueError on unequal shapes."""
        check_same_shape(a, b)
        square = (a - b).square().flatten(1).sum(1)
        return square / (square.detach() + self.c) ** self.p


@choice(Distance, "pseudo-huber")
@dataclass(frozen=True, slots=True)
class PseudoHuber:
    """sqrt(|a - b|^2 + c^2) - c, the norm over all pixels of a sample.  Song & Dhariwal 2023, Eq. 8."""

    c: float = 0.0
    """Constant c; 0 for the paper's c = 0.00054 sqrt(D), with D pixels times channels in a sample."""

    def __post_init__(self) -> None:
        """Raise SettingError on a negative c."""
        require(self.c >= 0, "c", f"must be positive, or 0 for 0.00054 sqrt(D), not {self.c}")

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,). Raises ValueError on unequal shapes."""
        check_same_shape(a, b)
        c = self.c or 0.00054 * math.sqrt(a[0].numel())
        return ((a - b).square().flatten(1).sum(1) + c**2).sqrt() - c
