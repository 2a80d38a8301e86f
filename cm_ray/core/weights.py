"""Weights lambda of a pair of times in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from cm_ray.core.precondition import EDM, Column, TrigFlow
from cm_ray.core.types import Times
from cm_ray.errors import SettingError
from cm_ray.settings.choices import choice

_LEAST_GAP = 1e-7
"""The smallest t - s of a weight: rounding can make continuous times equal; their distance is then 0, too."""


class Weight(Protocol):
    """lambda, the weight of a pair of times."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return the weights (b,) of the pairs t > s of a network under a column."""
        ...


@choice(Weight, "uniform")
@dataclass(frozen=True, slots=True)
class UniformWeight:
    """lambda = 1.  Song et al. 2023."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return ones (b,)."""
        return torch.ones_like(t)


@choice(Weight, "snr")
@dataclass(frozen=True, slots=True)
class SNR:
    """lambda = SNR = t^-2.  OpenAI's `get_weightings`."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return the weights (b,)."""
        return t**-2


@choice(Weight, "snr+1")
@dataclass(frozen=True, slots=True)
class SNRPlusOne:
    """lambda = SNR + 1, of Salimans & Ho 2022, section 4: the loss of x and of noise together."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return the weights (b,)."""
        return t**-2 + 1


@choice(Weight, "truncated-snr")
@dataclass(frozen=True, slots=True)
class TruncatedSNR:
    """lambda = max(SNR, 1).  Salimans & Ho 2022, section 4."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return the weights (b,)."""
        return (t**-2).clamp(min=1)


@choice(Weight, "karras")
@dataclass(frozen=True, slots=True)
class KarrasWeight:
    """lambda = SNR + 1/sigma_data^2 = (t^2 + sigma_data^2)/(t sigma_data)^2.  Karras et al. 2022, table 1."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return the weights (b,)."""
        if not isinstance(column, EDM | TrigFlow):
            raise SettingError("weight", "karras needs the sigma_data of column edm or trigflow")
        return t**-2 + column.sigma_data**-2


@dataclass(frozen=True, slots=True)
class OutputScale:
    """lambda = 1/c_out(t)^2: the loss of the network's output F instead of the clean image."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return the weights (b,)."""
        return column.c_out(t) ** -2


@choice(Weight, "inverse-gap")
@dataclass(frozen=True, slots=True)
class InverseGap:
    """lambda = 1/(t - s).  Song & Dhariwal 2023 (iCT), section 3.1."""

    def __call__(self, t: Times, s: Times, column: Column, /) -> Times:
        """Return the weights (b,)."""
        return 1.0 / (t - s).clamp(min=_LEAST_GAP)
