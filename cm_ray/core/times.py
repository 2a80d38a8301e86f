"""Noise levels and their Karras grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cm_ray.errors import require

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseLevels:
    """The range of noise standard deviations, and the curvature of the grids on it."""

    t_min: float = 0.002
    """epsilon, the smallest noise standard deviation (data in [-1, 1])."""
    t_max: float = 80.0
    """T, the largest noise standard deviation."""
    rho: float = 7.0
    """Curvature of the Karras time grids, of training and of sampling."""

    def __post_init__(self) -> None:
        """Raise SettingError when the range is empty or the curvature is not positive."""
        require(0 < self.t_min < self.t_max, "t_min", f"{self.t_min} must be in (0, t_max = {self.t_max})")
        require(self.rho > 0, "rho", f"must be positive, not {self.rho}")

    def grid(self, n: int) -> Tensor:
        """Return the Karras grid of n boundaries, ascending, float64 (n,); see `karras_times`."""
        return karras_times(n, t_min=self.t_min, t_max=self.t_max, rho=self.rho)


def turned(times: Iterable[float]) -> tuple[float, ...]:
    """Return the times in reverse order: grids and times of samplers ascend, time points descend.

    Time points tau_1 > tau_2 > ... are written as in Algorithm 1 of Song et al. 2023.
    """
    return tuple(times)[::-1]


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
