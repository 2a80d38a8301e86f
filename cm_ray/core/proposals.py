"""Which times to train on: neighbours on a grid, or continuous ones, as functions of step and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from cm_ray.core.schedules import Scales
from cm_ray.core.times import karras_times
from cm_ray.core.types import Times


class Proposal(Protocol):
    """Which pair of neighbours on the grid to train on."""

    def __call__(self, times: Tensor, uniforms: Tensor, /) -> Tensor:
        """Map a grid (n,) and uniform numbers (b,) to indices i in [0, n - 2] (b,), by inversion."""
        ...


@dataclass(frozen=True)
class UniformProposal:
    """n ~ U{1 .. N - 1}.  Song et al. 2023, Algorithms 2 and 3."""

    def __call__(self, times: Tensor, uniforms: Tensor, /) -> Tensor:
        """Return the indices (b,)."""
        intervals = len(times) - 1
        return (uniforms.double() * intervals).long().clamp(max=intervals - 1)


@dataclass(frozen=True)
class LognormalProposal:
    """p(i) prop. to erf((ln t_{i+1} - p_mean)/(sqrt2 p_std)) - erf((ln t_i - p_mean)/(sqrt2 p_std)).

    Song & Dhariwal 2023 (iCT), Eq. 14: the discretised lognormal of EDM's noise levels.
    """

    p_mean: float = -1.1
    p_std: float = 2.0

    def probabilities(self, times: Tensor) -> Tensor:
        """Return the probabilities of the intervals, float64 (n - 1,), summing to 1."""
        edges = torch.erf((times.double().log() - self.p_mean) / (math.sqrt(2.0) * self.p_std))
        mass = edges.diff()
        return mass / mass.sum()

    def __call__(self, times: Tensor, uniforms: Tensor, /) -> Tensor:
        """Return the indices (b,)."""
        cumulative = self.probabilities(times).cumsum(0).to(uniforms.device)
        return torch.searchsorted(cumulative, uniforms.double(), right=True).clamp(max=len(times) - 2)


class TimePairs(Protocol):
    """Which pairs of times to train on at a step."""

    def __call__(self, step: int, uniforms: Tensor, /) -> tuple[Times, Times]:
        """Map uniform numbers (b,) to times t > s, float32 (b,), by inversion."""
        ...

    def gauges(self, step: int, /) -> Mapping[str, float]:
        """Return what a log should say of the step."""
        ...


@dataclass(frozen=True)
class GridPairs:
    """Neighbours t_{i+1} > t_i on the Karras grid of N(k) boundaries.  Song et al. 2023, Algorithms 2, 3."""

    scales: Scales
    proposal: Proposal
    t_min: float = 0.002
    t_max: float = 80.0
    rho: float = 7.0

    def __call__(self, step: int, uniforms: Tensor, /) -> tuple[Times, Times]:
        """Return t and s (b,)."""
        grid = _grid(self.scales(step), self.t_min, self.t_max, self.rho, uniforms.device)
        index = self.proposal(grid, uniforms)
        return grid[index + 1].float(), grid[index].float()

    def gauges(self, step: int, /) -> Mapping[str, float]:
        """Return N(step)."""
        return {"num_scales": self.scales(step)}


@dataclass(frozen=True)
class LognormalTimes:
    """ln t ~ N(p_mean, p_std^2), cut to (t_min, t_max), against the clean image: s = 0.

    Karras et al. 2022, table 1 (training of a denoiser; p_mean -1.2, p_std 1.2).
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    t_min: float = 0.002
    t_max: float = 80.0

    def __call__(self, step: int, uniforms: Tensor, /) -> tuple[Times, Times]:
        """Return t (b,) and zeros."""
        low, high = (_normal_cdf((math.log(t) - self.p_mean) / self.p_std) for t in (self.t_min, self.t_max))
        normals = torch.special.ndtri(low + uniforms.double() * (high - low))
        t = (self.p_mean + self.p_std * normals).exp().clamp(self.t_min, self.t_max).float()
        return t, torch.zeros_like(t)

    def gauges(self, step: int, /) -> Mapping[str, float]:
        """Return nothing: all steps are alike."""
        return {}


@dataclass(frozen=True)
class TunedPairs:
    """Continuous t, and s = r(t, k) which comes nearer in stages: r/t = 1 - n(t)/q^a, at least t_min.

    a = 1 + floor(k/K · stages), n(t) = 1 + k_factor · sigmoid(-b t).  Geng et al. 2024 (ECT), Eq. 15, 18.
    In the first stages r is t_min for most t: training begins as that of a denoiser. Theirs goes down to 0,
    where the boundary is; ours is at t_min.
    """

    times: LognormalTimes
    q: float
    k_factor: float
    b: float
    stages: int
    total_steps: int

    def stage(self, step: int) -> int:
        """Return the stage of a step, 0 .. stages - 1."""
        return min(self.stages * step // self.total_steps, self.stages - 1)

    def __call__(self, step: int, uniforms: Tensor, /) -> tuple[Times, Times]:
        """Return t and s (b,)."""
        t, _ = self.times(step, uniforms)
        gap = (1 + self.k_factor * torch.sigmoid(-self.b * t)) / self.q ** (self.stage(step) + 1)
        return t, (t * (1 - gap)).clamp(min=self.times.t_min)

    def gauges(self, step: int, /) -> Mapping[str, float]:
        """Return the stage."""
        return {"stage": self.stage(step)}


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


@lru_cache(maxsize=8)
def _grid(n: int, t_min: float, t_max: float, rho: float, device: torch.device) -> Tensor:
    return karras_times(n, t_min=t_min, t_max=t_max, rho=rho).to(device)
