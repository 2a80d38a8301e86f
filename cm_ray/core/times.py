"""When: time grids, the numbers of scales N(k), the target decays mu(k), and which pair of times to train.

Steps k count from 0 and the curricula are functions of the step alone, so that nothing of them is state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cm_ray.core.types import Times


def karras_times(n: int, *, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Return the ascending grid of n boundaries from t_min to t_max, float64 (n,).

    t_i = (t_min^(1/rho) + (i - 1)/(n - 1) (t_max^(1/rho) - t_min^(1/rho)))^rho, i = 1 .. n; both ends are
    exact. Song et al. 2023, section 2; Karras et al. 2022, Eq. 5. Raises ValueError when n < 2.
    """
    if n < 2:
        raise ValueError(f"a time grid has at least 2 boundaries, not {n}")
    low, high = t_min ** (1 / rho), t_max ** (1 / rho)
    times = (low + torch.linspace(0, 1, n, dtype=torch.float64) * (high - low)) ** rho
    times[0], times[-1] = t_min, t_max
    return times


class Scales(Protocol):
    """N(k): how many boundaries the time grid has at a step."""

    def __call__(self, step: int, /) -> int:
        """Return N(step), at least 2."""
        ...


@dataclass(frozen=True)
class ConstantScales:
    """N(k) = n, as in consistency distillation."""

    n: int

    def __call__(self, step: int, /) -> int:
        """Return n."""
        return self.n


@dataclass(frozen=True)
class AdaptiveScales:
    """N(k) = ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1: from s0 to s1 + 1 boundaries.

    Song et al. 2023, section 5 and appendix C. It stops growing at k = K (`total_steps`).
    """

    s0: int
    s1: int
    total_steps: int

    def __call__(self, step: int, /) -> int:
        """Return N(step). Integer arithmetic decides the ceiling, so that no rounding can move it."""
        k, total = min(step, self.total_steps), self.total_steps
        squared = k * ((self.s1 + 1) ** 2 - self.s0**2) + self.s0**2 * total  # times K, exactly
        root = math.isqrt(squared // total)  # floor of the real root
        return root if root * root * total == squared else root + 1


@dataclass(frozen=True)
class DoublingScales:
    """N(k) = min(s0 2^floor(k/K'), s1) + 1 with K' = floor(K / (log2 floor(s1/s0) + 1)).

    Song & Dhariwal 2023 (iCT), Eq. 19 and table 1.
    """

    s0: int
    s1: int
    total_steps: int

    def __call__(self, step: int, /) -> int:
        """Return N(step)."""
        period = max(1, int(self.total_steps / (math.log2(self.s1 // self.s0) + 1)))
        return int(min(self.s0 * 2 ** min(step // period, 62), self.s1)) + 1


class TargetDecay(Protocol):
    """mu(k): how much of the old target network is kept at a step; 0 makes the target the student."""

    def __call__(self, step: int, /) -> float:
        """Return mu(step) in [0, 1)."""
        ...


@dataclass(frozen=True)
class ConstantDecay:
    """mu(k) = mu, as in consistency distillation; mu = 0 is the stop-gradient target of iCT."""

    mu: float

    def __call__(self, step: int, /) -> float:
        """Return mu."""
        return self.mu


@dataclass(frozen=True)
class AdaptiveDecay:
    """mu(k) = exp(s0 ln mu0 / N(k)).  Song et al. 2023, section 5.

    With the paper's N, which counts boundaries: mu(0) = mu0 for N(0) = s0. OpenAI's code divides by
    N - 1 intervals instead, and so begins at mu0^2 (.9025 for .95).
    """

    mu0: float
    s0: int
    scales: Scales

    def __call__(self, step: int, /) -> float:
        """Return mu(step)."""
        return math.exp(self.s0 * math.log(self.mu0) / self.scales(step))


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
class InverseGapWeight:
    """lambda = 1/(t - s).  Song & Dhariwal 2023 (iCT), section 3.1."""

    def __call__(self, t: Times, s: Times, /) -> Times:
        """Return the weights (b,)."""
        return 1.0 / (t - s)
