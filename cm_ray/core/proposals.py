"""Distributions of the times of training pairs, as functions of uniform numbers and of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch

from cm_ray.core.schedules import Adaptive, Scales
from cm_ray.core.times import NoiseLevels, karras_times
from cm_ray.core.types import Times
from cm_ray.errors import require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_RATIO = 0.999
"""The largest r/t of easy consistency tuning: closer times may be rounded to equal ones, without a loss."""


class IntervalProposal(Protocol):
    """Distribution over the intervals between neighbours on the grid."""

    def __call__(self, times: Tensor, uniforms: Tensor, /) -> Tensor:
        """Map a grid (n,) and uniform numbers (b,) to indices i in [0, n - 2] (b,), by inversion."""
        ...


@choice(IntervalProposal, "uniform")
@dataclass(frozen=True, slots=True)
class UniformIntervals:
    """n ~ U{1 .. N - 1}.  Song et al. 2023, Algorithms 2 and 3."""

    def __call__(self, times: Tensor, uniforms: Tensor, /) -> Tensor:
        """Return the indices (b,)."""
        intervals = len(times) - 1
        return (uniforms.double() * intervals).long().clamp(max=intervals - 1)


@choice(IntervalProposal, "lognormal")
@dataclass(frozen=True, slots=True)
class LognormalIntervals:
    """p(i) prop. to erf((ln t_{i+1} - mean)/(sqrt2 std)) - erf((ln t_i - mean)/(sqrt2 std)).

    Song & Dhariwal 2023 (iCT), Eq. 14: the discretised lognormal of EDM's noise levels.
    """

    mean: float = -1.1
    """Mean of ln t."""
    std: float = 2.0
    """Standard deviation of ln t."""

    def __post_init__(self) -> None:
        """Raise SettingError unless the standard deviation is positive."""
        require(self.std > 0, "std", f"must be positive, not {self.std}")

    def probabilities(self, times: Tensor) -> Tensor:
        """Return the probabilities of the intervals, float64 (n - 1,), summing to 1."""
        edges = torch.erf((times.double().log() - self.mean) / (math.sqrt(2.0) * self.std))
        mass = edges.diff()
        return mass / mass.sum()

    def __call__(self, times: Tensor, uniforms: Tensor, /) -> Tensor:
        """Return the indices (b,)."""
        cumulative = self.probabilities(times).cumsum(0).to(uniforms.device)
        return torch.searchsorted(cumulative, uniforms.double(), right=True).clamp(max=len(times) - 2)


class TrainedTimes(Protocol):
    """Distribution of the pairs of times t > s at a training step."""

    @property
    def scales(self) -> Scales | None:
        """N(k) of the grid; None for continuous times."""
        ...

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Map uniform numbers to times t > s, float32 (b,), by inversion.

        uniforms: (b,), or (b, n) for a method that takes n of them; then s may be equal to t.
        """
        ...

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return the values of the schedules at a step, for the log."""
        ...


class PairTimes(TrainedTimes, Protocol):
    """Distribution of the pairs of times of consistency training, which get closer during training."""


class NoiseTimes(TrainedTimes, Protocol):
    """Distribution of the noise levels t of a diffusion model; s = 0, the clean image."""


@choice(PairTimes, "grid")
@dataclass(frozen=True, slots=True)
class Grid:
    """Neighbours t_{i+1} > t_i on the Karras grid of N(k) boundaries.  Song et al. 2023, Algorithms 2, 3."""

    scales: Scales = field(default_factory=Adaptive)
    """N(k), the number of boundaries."""
    proposal: IntervalProposal = field(default_factory=UniformIntervals)
    """The distribution of the intervals."""

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and s (b,)."""
        n = self.scales(step, total_steps)
        grid = _grid(n, levels.t_min, levels.t_max, levels.rho, uniforms.device)
        index = self.proposal(grid, uniforms)
        return grid[index + 1].float(), grid[index].float()

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return N(step)."""
        return {"num_scales": self.scales(step, total_steps)}


@choice(NoiseTimes, "lognormal")
@dataclass(frozen=True, slots=True)
class Lognormal:
    """ln t ~ N(mean, std^2), truncated to (t_min, t_max), and s = 0, the clean image.

    Karras et al. 2022, table 1 (training of a denoiser).
    """

    mean: float = -1.2
    """Mean of ln t."""
    std: float = 1.2
    """Standard deviation of ln t."""

    def __post_init__(self) -> None:
        """Raise SettingError unless the standard deviation is positive."""
        require(self.std > 0, "std", f"must be positive, not {self.std}")

    @property
    def scales(self) -> None:
        """None: the times are continuous."""
        return None

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t (b,) and zeros."""
        t = lognormal(self.mean, self.std, uniforms, levels)
        return t, torch.zeros_like(t)

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return an empty mapping, because all steps have the same distribution."""
        return {}


@choice(PairTimes, "tuned")
@dataclass(frozen=True, slots=True)
class Tuned:
    """Continuous t, and s = r(t, k), which gets closer to t in stages: r/t = 1 - n(t)/q^a, at least t_min.

    a = 1 + floor(k/K · stages), n(t) = 1 + k sigmoid(-b t).  Geng et al. 2024 (ECT), Eq. 15, 18. In the
    first stages r is t_min for most t, as in the training of a denoiser. In the paper the smallest r is
    0, the time of its boundary; here it is t_min. As in the paper's code, r/t is at most 0.999.
    """

    mean: float = -1.1
    """Mean of ln t."""
    std: float = 2.0
    """Standard deviation of ln t."""
    q: float = 2.0
    """Base q of the distance between the times, which shrinks with each stage."""
    k: float = 8.0
    """Factor k of the distance at small t."""
    b: float = 1.0
    """Rate b at which the factor decreases with t."""
    stages: int = 8
    """Number of stages of equal length."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        require(self.std > 0, "std", f"must be positive, not {self.std}")
        require(self.q > 1, "q", f"must be greater than 1, not {self.q}")
        require(self.stages >= 1, "stages", f"must be at least 1, not {self.stages}")

    @property
    def scales(self) -> None:
        """None: the times are continuous."""
        return None

    def stage(self, step: int, total_steps: int) -> int:
        """Return the stage of a step, 0 .. stages - 1."""
        return min(self.stages * step // total_steps, self.stages - 1)

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and s (b,)."""
        t = lognormal(self.mean, self.std, uniforms, levels)
        gap = (1 + self.k * torch.sigmoid(-self.b * t)) / self.q ** (self.stage(step, total_steps) + 1)
        return t, (t * (1 - gap).clamp(max=_LARGEST_RATIO)).clamp(min=levels.t_min)

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return the stage."""
        return {"stage": self.stage(step, total_steps)}


def lognormal(mean: float, std: float, uniforms: Tensor, levels: NoiseLevels) -> Times:
    """Return lognormal times, truncated to the noise levels, float32 (b,)."""
    low, high = (_normal_cdf((math.log(t) - mean) / std) for t in (levels.t_min, levels.t_max))
    normals = torch.special.ndtri(low + uniforms.double() * (high - low))
    return (mean + std * normals).exp().clamp(levels.t_min, levels.t_max).float()


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


@lru_cache(maxsize=8)
def _grid(n: int, t_min: float, t_max: float, rho: float, device: torch.device) -> Tensor:
    return karras_times(n, t_min=t_min, t_max=t_max, rho=rho).to(device)
