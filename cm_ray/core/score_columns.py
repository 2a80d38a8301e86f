"""The preconditioning of score networks that is not among the columns of Karras et al. 2022.

A score network s(x_t, t) is the denoiser D = x_t + t^2 s. NCSN's network is the score itself, that of the
sub-VP SDE is the negative noise on the scale of the SDE. NCSNv2's and the VE SDE's are column ve, that of the
VP SDE is column vp (`cm_ray.core.precondition`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cm_ray.core.precondition import Column
from cm_ray.core.sde import SubVariancePreserving
from cm_ray.core.types import Times
from cm_ray.errors import require
from cm_ray.settings.choices import choice


@choice(Column, "sub-vp")
@dataclass(frozen=True)
class SubVP:
    """The sub-VP SDE: the network predicts the noise, and its time is that of the SDE.  Song et al. 2021."""

    beta_d: float = 19.9
    """Growth of the SDE's beta."""
    beta_min: float = 0.1
    """The SDE's beta at time 0."""
    steps: int = 1000
    """Number of discrete times of the network."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are not positive."""
        SubVariancePreserving(self.beta_d, self.beta_min)
        require(self.steps >= 2, "steps", f"must be at least 2, not {self.steps}")

    def c_skip(self, t: Times, /) -> Times:
        """Return 1."""
        return torch.ones_like(t)

    def c_out(self, t: Times, /) -> Times:
        """Return -t."""
        return -t

    def c_in(self, t: Times, /) -> Times:
        """Return alpha, the scale of the SDE."""
        return SubVariancePreserving(self.beta_d, self.beta_min).alpha(t)

    def network_time(self, t: Times, /) -> Times:
        """Return (steps - 1) u."""
        return (self.steps - 1) * SubVariancePreserving(self.beta_d, self.beta_min).time(t)


@choice(Column, "ncsn")
@dataclass(frozen=True)
class NCSN:
    """NCSN: the network is the score of pixels in [0, 1], and its time is the index of the noise level.

    Song & Ermon 2019. In [0, 1] the noise level is t/2 and the score twice ours, so that D = x_t + t^2/2 F.
    Times between two levels have an index between theirs, which the network rounds.
    """

    count: int = 10
    """L, the number of noise levels."""
    first: float = 2.0
    """The largest level, of index 0: twice that of pixels in [0, 1]."""
    last: float = 0.02
    """The smallest level, of index L - 1."""

    def __post_init__(self) -> None:
        """Raise SettingError on levels that do not descend."""
        require(self.count >= 2, "count", f"must be at least 2, not {self.count}")
        sound = 0 < self.last < self.first
        require(sound, "last", f"must be between 0 and first {self.first:g}, not {self.last:g}")

    def c_skip(self, t: Times, /) -> Times:
        """Return 1."""
        return torch.ones_like(t)

    def c_out(self, t: Times, /) -> Times:
        """Return t^2/2."""
        return t**2 / 2

    def c_in(self, t: Times, /) -> Times:
        """Return 1."""
        return torch.ones_like(t)

    def network_time(self, t: Times, /) -> Times:
        """Return the index of the level, 0 for the largest."""
        ratio = math.log(self.first / self.last)
        return (self.count - 1) * (math.log(self.first) - t.log()) / ratio
