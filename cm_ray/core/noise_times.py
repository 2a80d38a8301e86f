"""The noise levels on which score networks are trained: those of NCSN and of the VE, VP and sub-VP SDEs.

All are times t = sigma/alpha of the same noisy images (`cm_ray.core.sde`); they differ in how often each is
drawn. With `cm_ray.core.weights.SNR`, t^-2, a loss of denoising is the one of the papers: that of the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cm_ray.core.proposals import NoiseTimes
from cm_ray.core.sde import SDE, SubVariancePreserving, VarianceExploding, VariancePreserving
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Times
from cm_ray.errors import SettingError, require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Tensor


class _Levels:
    """Noise levels by themselves: the other time of each pair is 0, the clean image."""

    __slots__ = ()

    @property
    def scales(self) -> None:
        """None: there is no N(k)."""
        return None

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return an empty mapping, because all steps have the same distribution."""
        return {}


@choice(NoiseTimes, "geometric")
@dataclass(frozen=True, slots=True)
class Geometric(_Levels):
    """L noise levels from t_min to t_max with a common ratio, all alike.  Song & Ermon 2019 (NCSN), Eq. 6.

    Also the VE SDE in discrete time, whose levels are 1000 (SMLD).
    """

    count: int = 10
    """L, the number of levels."""

    def __post_init__(self) -> None:
        """Raise SettingError on less than two levels."""
        require(self.count >= 2, "count", f"must be at least 2, not {self.count}")

    def levels(self, noise: NoiseLevels) -> Tensor:
        """Return the levels, ascending, float64 (L,)."""
        return geometric(self.count, noise)

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and zeros, float32 (b,)."""
        return _one_of(self.levels(levels), uniforms)


@choice(NoiseTimes, "log-uniform")
@dataclass(frozen=True, slots=True)
class LogUniform(_Levels):
    """ln t uniform from ln t_min to ln t_max: the VE SDE in continuous time.  Song et al. 2021.

    It is also likelihood weighting of every SDE (Song et al. 2021, "Maximum Likelihood Training of
    Score-Based Diffusion Models"): u uniform with the weight g^2 is t log-uniform with the weight t^-2.
    """

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and zeros, float32 (b,)."""
        return _continuous(VarianceExploding(), uniforms, levels)


@choice(NoiseTimes, "vp")
@dataclass(frozen=True, slots=True)
class VPTimes(VariancePreserving, _Levels):
    """The VP SDE: u uniform between the times of t_min and t_max, or one of DDPM's discrete times."""

    count: int = 0
    """N, the number of discrete times, of which those within the noise levels are drawn; 0: continuous."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        VariancePreserving.__post_init__(self)
        require(self.count != 1 and self.count >= 0, "count", f"must be 0 or at least 2, not {self.count}")

    def levels(self, noise: NoiseLevels) -> Tensor:
        """Return DDPM's noise levels within those of the model, ascending, float64 (n,).

        beta_i = (beta_min + (i - 1)/(N - 1) beta_d)/N and 1 + t_i^2 = 1/prod (1 - beta_j), j <= i. Ho et al.
        2020; Song et al. 2021, appendix E.  Raises SettingError when there are none.
        """
        betas = self.beta(torch.linspace(0, 1, self.count, dtype=torch.float64)) / self.count
        t = torch.expm1(-torch.log1p(-betas).cumsum(0)).sqrt()
        within = t[(t >= noise.t_min) & (t <= noise.t_max)]
        if not len(within):
            raise SettingError(
                "times.count", f"{self.count} gives no time between t_min and t_max; take more"
            )
        return within

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and zeros, float32 (b,)."""
        if self.count:
            return _one_of(self.levels(levels), uniforms)
        return _continuous(self, uniforms, levels)


@choice(NoiseTimes, "sub-vp")
@dataclass(frozen=True, slots=True)
class SubVPTimes(SubVariancePreserving, _Levels):
    """The sub-VP SDE: u uniform between the times of t_min and t_max."""

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and zeros, float32 (b,)."""
        return _continuous(self, uniforms, levels)


def geometric(count: int, noise: NoiseLevels) -> Tensor:
    """Return `count` noise levels from t_min to t_max with a common ratio, ascending, float64 (count,)."""
    ends = torch.tensor([noise.t_min, noise.t_max], dtype=torch.float64)
    low, high = ends.log().tolist()
    levels = torch.linspace(low, high, count, dtype=torch.float64).exp()
    levels[0], levels[-1] = noise.t_min, noise.t_max
    return levels


def _one_of(levels: Tensor, uniforms: Tensor) -> tuple[Times, Times]:
    index = (uniforms.double() * len(levels)).long().clamp(max=len(levels) - 1)
    t = levels.to(uniforms.device)[index].float()
    return t, torch.zeros_like(t)


def _continuous(sde: SDE, uniforms: Tensor, levels: NoiseLevels) -> tuple[Times, Times]:
    """Return the noise levels at uniform times of an SDE, and zeros."""
    low, high = sde.time(torch.tensor([levels.t_min, levels.t_max], dtype=torch.float64)).tolist()
    t = sde.level(low + uniforms.double() * (high - low)).clamp(levels.t_min, levels.t_max).float()
    return t, torch.zeros_like(t)
