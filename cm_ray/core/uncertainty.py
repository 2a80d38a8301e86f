"""Weights of noise levels that are learned with the network, from how large its loss is at each of them.

A loss l(t) of regression becomes e^-u(t) l(t) + u(t), whose minimum over u is at u = ln E[l(t)]: there all
noise levels have the same weighted loss, 1.  Kendall et al. 2018; Karras et al. 2024 (EDM2), Eq. 21; with w =
-u, Lu & Song 2024 (sCM).
"""

from __future__ import annotations

from dataclasses import dataclass

from cm_ray.core.types import Times
from cm_ray.errors import require
from cm_ray.settings.choices import choice


class Uncertainty:
    """Base class of the uncertainty of a loss; each subclass is a choice of `uncertainty`."""


@choice(Uncertainty, "none")
@dataclass(frozen=True, slots=True)
class NoUncertainty(Uncertainty):
    """u = 0: the weights of the method alone."""


@choice(Uncertainty, "learned")
@dataclass(frozen=True, slots=True)
class LearnedUncertainty(Uncertainty):
    """A learned u(t): a linear layer of Fourier features of ln(t)/4.  EDM2's uncertainty-based weighting."""

    channels: int = 128
    """Number of Fourier features."""

    def __post_init__(self) -> None:
        """Raise SettingError without features."""
        require(self.channels >= 1, "channels", f"must be at least 1, not {self.channels}")


def uncertain_loss(loss: Times, u: Times) -> Times:
    """Return e^-u loss + u of each sample (b,).  EDM2, Eq. 21."""
    return (-u).exp() * loss + u
