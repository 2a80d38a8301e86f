"""FDinf: the Fréchet distance extrapolated to infinitely many samples (Chong & Forsyth 2020)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.errors import UserError
from cm_ray.metrics.estimate import Estimate, check_features, infinitesimal_jackknife
from cm_ray.metrics.frechet import FrechetReference, frechet_influence


def frechet_infinity(
    features: Tensor, reference: FrechetReference, *, points: int = 15, seed: int = 0
) -> Estimate:
    """Return the extrapolated distance, with its standard error. Chong & Forsyth 2020, Sec. 4.

    The distance of n samples exceeds that of infinitely many by a constant over n, when n is well above the
    number of features. So distances of random subsets of n / 10 to n samples are fitted by a line in 1 / n;
    its value at 0 is the result, which may be negative. The bias from the finite reference remains.

    features: (n, d) of the samples.  points: number of subset sizes, 2 or more; each costs one `eigh`.  The
    value is a weighted sum of distances, so the influence of a sample is the same weighted sum of its
    influences on the distances of the subsets that contain it. The infinitesimal jackknife of these
    influences gives the error without further distances. Raises UserError when a tenth of n is not more than
    d: such distances do not lie on a line.
    """
    check_features(features)
    n = len(features)
    check_extrapolation(n, features.shape[1])
    sizes = np.linspace(n // 10, n, points).round().astype(int)
    rng = np.random.default_rng(derived_seed(seed, "FD-infinity"))
    value, influence = 0.0, np.zeros(n)
    for size, weight in zip(sizes, _weights_at_zero(1 / sizes), strict=True):
        subset = rng.permutation(n)[:size]
        distance, within = frechet_influence(features[subset], reference)
        value += weight * distance
        influence[subset] += weight * n / size * within  # from shares of the subset to shares of all samples
    return Estimate(
        value=float(value),
        error=infinitesimal_jackknife(influence),
        settings={"points": points, "subset_seed": seed},
    )


def min_samples(dim: int) -> int:
    """Return the number of samples with `dim` features that `frechet_infinity` needs."""
    return 10 * (dim + 1)


def check_extrapolation(n: int, dim: int) -> None:
    """Raise UserError when `n` samples with `dim` features are too few for `frechet_infinity`."""
    if n < min_samples(dim):
        raise UserError(
            f"FDinf extrapolates from a tenth of the samples, and {n} samples are not more than "
            f"10 x {dim} features; take {min_samples(dim)} or more."
        )


def _weights_at_zero(x: np.ndarray) -> np.ndarray:
    """Return weights w (k,) such that w·y is the value at 0 of the least-squares line through (x, y)."""
    return np.polyfit(x, np.eye(len(x)), 1)[1]
