"""lambda: how much a pair of times counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from cm_ray.core.types import Times

_LEAST_GAP = 1e-7
"""Continuous times can round to equal ones, whose distance is zero, too."""


class Weight(Protocol):
    """lambda: how much a pair counts."""

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return the weights (b,) of the pairs t > s."""
        ...


@dataclass(frozen=True)
class UniformWeight:
    """lambda = 1.  Song et al. 2023."""

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return ones (b,)."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class SnrWeight:
    """lambda = SNR = t^-2.  OpenAI's `get_weightings`."""

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return the weights (b,)."""
        return t**-2


@dataclass(frozen=True)
class SnrPlusOneWeight:
    """lambda = SNR + 1, of Salimans & Ho 2022, section 4: the loss of x and of noise together."""

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return the weights (b,)."""
        return t**-2 + 1


@dataclass(frozen=True)
class TruncatedSnrWeight:
    """lambda = max(SNR, 1).  Salimans & Ho 2022, section 4."""

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return the weights (b,)."""
        return (t**-2).clamp(min=1)


@dataclass(frozen=True)
class KarrasWeight:
    """lambda = SNR + 1/sigma_data^2 = (t^2 + sigma_data^2)/(t sigma_data)^2.  Karras et al. 2022, table 1."""

    sigma_data: float = 0.5

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return the weights (b,)."""
        return t**-2 + self.sigma_data**-2


@dataclass(frozen=True)
class InverseGapWeight:
    """lambda = 1/(t - s).  Song & Dhariwal 2023 (iCT), section 3.1."""

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return the weights (b,)."""
        return 1.0 / (t - s).clamp(min=_LEAST_GAP)
