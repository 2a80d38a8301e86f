"""The SDEs of score-based models (VE, VP, sub-VP) as names for the noise levels t of this project.

Song et al. 2021 (Score SDE), section 3.4. An SDE dy = f(u) y du + g(u) dw makes y_u = alpha(u) x + sigma(u) z
of clean images x, so that y_u/alpha(u) = x + t z with t = sigma/alpha: all of them are the same noisy images
x_t, on another scale and with another time u. The score of y_u is (alpha D(x_t, t) - y_u)/sigma^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from cm_ray.errors import require

if TYPE_CHECKING:
    from torch import Tensor

Space = Literal["ve", "vp", "sub-vp"]


class SDE(Protocol):
    """An SDE dy = f(u) y du + g(u) dw; its time u grows with the noise level t. All functions are of (n,)."""

    def level(self, u: Tensor, /) -> Tensor:
        """Return the noise level t = sigma(u)/alpha(u)."""
        ...

    def time(self, t: Tensor, /) -> Tensor:
        """Return the SDE's time u at a noise level, the inverse of `level`."""
        ...

    def alpha(self, t: Tensor, /) -> Tensor:
        """Return the scale of the clean images at a noise level; sigma is t times it."""
        ...

    def drift(self, u: Tensor, /) -> Tensor:
        """Return f(u)."""
        ...

    def diffusion_squared(self, u: Tensor, /) -> Tensor:
        """Return g(u)^2."""
        ...


@dataclass(frozen=True, slots=True)
class VarianceExploding:
    """VE: y = x + t z, with the time u = ln t.  Song et al. 2021, Eq. 9; NCSN in continuous time.

    Their time is (u - ln sigma_min)/ln(sigma_max/sigma_min) in [0, 1], so that their steps are the same.
    """

    def level(self, u: Tensor, /) -> Tensor:
        """Return exp(u)."""
        return u.exp()

    def time(self, t: Tensor, /) -> Tensor:
        """Return ln t."""
        return t.log()

    def alpha(self, t: Tensor, /) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def drift(self, u: Tensor, /) -> Tensor:
        """Return 0."""
        return torch.zeros_like(u)

    def diffusion_squared(self, u: Tensor, /) -> Tensor:
        """Return 2 t^2, the derivative of t^2."""
        return 2 * (2 * u).exp()


@dataclass(frozen=True, slots=True)
class LinearBeta:
    """beta(u) = beta_min + beta_d u for u in [0, 1], of which B(u) is the integral from 0."""

    beta_d: float = 19.9
    """Growth of the SDE's beta."""
    beta_min: float = 0.1
    """The SDE's beta at time 0."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are not positive."""
        for name in ("beta_d", "beta_min"):
            require(getattr(self, name) > 0, name, f"must be positive, not {getattr(self, name)}")

    def beta(self, u: Tensor) -> Tensor:
        """Return beta(u)."""
        return self.beta_min + self.beta_d * u

    def integral(self, u: Tensor) -> Tensor:
        """Return B(u)."""
        return u * (self.beta_min + self.beta_d * u / 2)

    def inverse(self, integral: Tensor) -> Tensor:
        """Return the u at which B(u) has a value; accurate for small values, too."""
        return 2 * integral / ((self.beta_min**2 + 2 * self.beta_d * integral).sqrt() + self.beta_min)

    def drift(self, u: Tensor, /) -> Tensor:
        """Return -beta(u)/2."""
        return -self.beta(u) / 2


@dataclass(frozen=True, slots=True)
class VariancePreserving(LinearBeta):
    """VP: alpha^2 = exp(-B(u)) and sigma^2 = 1 - alpha^2.  Song et al. 2021, Eq. 11; DDPM."""

    def level(self, u: Tensor, /) -> Tensor:
        """Return sqrt(exp(B) - 1)."""
        return torch.expm1(self.integral(u)).sqrt()

    def time(self, t: Tensor, /) -> Tensor:
        """Return u with B(u) = ln(1 + t^2)."""
        return self.inverse(torch.log1p(t**2))

    def alpha(self, t: Tensor, /) -> Tensor:
        """Return 1/sqrt(1 + t^2)."""
        return (1 + t**2).rsqrt()

    def diffusion_squared(self, u: Tensor, /) -> Tensor:
        """Return beta(u)."""
        return self.beta(u)


@dataclass(frozen=True, slots=True)
class SubVariancePreserving(LinearBeta):
    """Sub-VP: alpha^2 = exp(-B(u)) and sigma = 1 - alpha^2.  Song et al. 2021, Eq. 12 and appendix B."""

    def level(self, u: Tensor, /) -> Tensor:
        """Return 2 sinh(B/2)."""
        return 2 * torch.sinh(self.integral(u) / 2)

    def time(self, t: Tensor, /) -> Tensor:
        """Return u with B(u) = 2 arsinh(t/2)."""
        return self.inverse(2 * torch.asinh(t / 2))

    def alpha(self, t: Tensor, /) -> Tensor:
        """Return exp(-B/2) = sqrt(1 + t^2/4) - t/2, written as the inverse of a sum."""
        return 1 / ((1 + t**2 / 4).sqrt() + t / 2)

    def diffusion_squared(self, u: Tensor, /) -> Tensor:
        """Return beta(u) (1 - exp(-2 B(u)))."""
        return -self.beta(u) * torch.expm1(-2 * self.integral(u))


SDES: dict[Space, SDE] = {
    "ve": VarianceExploding(),
    "vp": VariancePreserving(),
    "sub-vp": SubVariancePreserving(),
}
"""The SDEs of the paper, with its settings for images."""
