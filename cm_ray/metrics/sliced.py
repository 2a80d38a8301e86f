"""The sliced Wasserstein distance of features (Rabin et al. 2011; Bonneel et al. 2015)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.metrics.estimate import (
    REPLICATES,
    Counts,
    Estimate,
    check_features,
    repeated,
    standard_error,
)

_ROWS = 512  # vectors per batch in float64


def sliced_wasserstein(
    samples: Tensor,
    reference: Tensor,
    *,
    projections: int = 256,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Return the sliced 2-Wasserstein distance of features (n, d) and (m, d), of any type, in their unit.

    It is the root of the mean, over `projections` random directions, of the squared Wasserstein distance of
    the projected sets, which sorting computes. It depends on the whole distributions, not on two moments
    only; for finite sets from the same distribution it is above 0. The error treats the reference as fixed.
    """
    check_features(samples, reference)
    directions = normal(seed, 0, torch.arange(projections), Purpose.NOISE, (samples.shape[1],)).double()
    directions = (directions / directions.norm(dim=1, keepdim=True)).T.to(samples.device)
    x = _projected(samples, directions)
    y = _projected(reference.to(samples.device), directions).sort(0).values

    def statistic(counts: Counts) -> float:
        return float(squared_wasserstein_1d(repeated(x, counts).sort(0).values, y).mean().sqrt())

    return Estimate(
        value=statistic(np.ones(len(x), np.int64)),
        error=standard_error(statistic, len(x), replicates=replicates, seed=seed),
        settings={"projections": projections, "projection_seed": seed},
    )


def _projected(features: Tensor, directions: Tensor) -> Tensor:
    """Return features (n, d) projected on directions (d, c): (n, c), float64, converted in batches."""
    return torch.cat([batch.double() @ directions for batch in features.split(_ROWS)])


def squared_wasserstein_1d(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared 2-Wasserstein distances (c,) of the columns of x (n, c) and y (m, c), both sorted.

    It is the exact integral of the squared difference of the quantile functions, which are constant between
    the multiples of 1/n and of 1/m.
    """
    n, m = len(x), len(y)
    if n == m:
        return (x - y).square().mean(0)
    steps = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).sort().values  # in 1 / (n m)
    widths = steps.diff(prepend=torch.zeros(1, dtype=torch.int64))
    i, j = ((steps - 1) // m).to(x.device), ((steps - 1) // n).to(x.device)
    return ((x[i] - y[j]).square() * (widths.to(x) / (n * m))[:, None]).sum(0)
