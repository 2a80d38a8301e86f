"""Power-function averages of any length from snapshots of others.  Karras et al. 2024 (EDM2), appendix C.

The profile of an average after k steps is its weight as a function of the time t in (0, k]:
p(t) = (gamma + 1) t^gamma / k^(gamma + 1), which integrates to one. The average that is tracked with the
decays (1 - 1/j)^(gamma + 1) gives step j exactly the integral of p over (j - 1, j].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cm_ray.core.averages import gamma_of

_RIDGE = 1e-10
"""Added to the squared norm of each profile, of 1: neighbouring profiles are almost equal, and their
coefficients would otherwise grow without bound by rounding."""


class Profile(NamedTuple):
    """The profile of a power-function average."""

    steps: float
    """k, the number of steps that it averages."""
    length: float
    """sigma_rel, the standard deviation of t/k."""


class Reconstruction(NamedTuple):
    """A linear combination of profiles that is nearest to another one."""

    coefficients: tuple[float, ...]
    """Factor of each profile; they add up to 1."""
    error: float
    """Norm of the difference to the wanted profile, over the norm of that profile."""


def inner_products(a: Sequence[Profile], b: Sequence[Profile]) -> Tensor:
    """Return the integral of each p_a times each p_b over t, float64 (len(a), len(b)).  EDM2, Eq. 151.

    With the steps k <= K of the two and the exponent h of the later one, it is
    (g + 1) (h + 1) / (g + h + 1) · (k/K)^h / K.
    """
    g, h = _exponents(a)[:, None], _exponents(b)[None, :]
    k, m = _steps(a)[:, None], _steps(b)[None, :]
    last = torch.maximum(k, m)
    ratio = torch.where(k < m, (k / last) ** h, (m / last) ** g)
    return (g + 1) * (h + 1) / (g + h + 1) * ratio / last


def reconstruction(tracked: Sequence[Profile], wanted: Profile) -> Reconstruction:
    """Return the combination of tracked profiles whose difference to the wanted one is the smallest.

    Least squares under the condition that the coefficients add up to 1, in float64 (EDM2, Algorithm 3, where
    they are divided by their sum instead). A profile that is tracked stands for itself. Raises ValueError
    without tracked profiles.
    """
    if not tracked:
        raise ValueError("an average cannot be reconstructed from nothing")
    if wanted in tracked:
        return Reconstruction(tuple(float(profile == wanted) for profile in tracked), 0.0)
    norms, norm = _norms(tracked), _norms([wanted])
    cosines = inner_products(tracked, tracked) / norms[:, None] / norms
    target = inner_products(tracked, [wanted])[:, 0] / norms / norm
    total = norm / norms  # the condition: total · x = 1 for factors x of profiles of norm 1
    factor = torch.linalg.cholesky(cosines + _RIDGE * torch.eye(len(tracked), dtype=torch.float64))
    free, pull = torch.cholesky_solve(torch.stack([target, total], 1), factor).unbind(1)
    x = free + (1 - total @ free) / (total @ pull) * pull
    squared = 1 - 2 * x @ target + x @ cosines @ x
    return Reconstruction(tuple((x * total).tolist()), float(squared.clamp(min=0).sqrt()))


def _exponents(profiles: Sequence[Profile]) -> Tensor:
    return torch.tensor([gamma_of(each.length) for each in profiles], dtype=torch.float64)


def _steps(profiles: Sequence[Profile]) -> Tensor:
    return torch.tensor([each.steps for each in profiles], dtype=torch.float64)


def _norms(profiles: Sequence[Profile]) -> Tensor:
    """Return the norm of each profile: the square root of (g + 1)² / ((2g + 1) k)."""
    g = _exponents(profiles)
    return (g + 1) / ((2 * g + 1) * _steps(profiles)).sqrt()
