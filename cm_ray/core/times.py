"""When: the grid of noise standard deviations."""

from __future__ import annotations

import torch
from torch import Tensor


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
