"""The Fréchet distance between two Gaussians, the number behind FID."""

from __future__ import annotations

import numpy as np

from cm_ray.metrics.statistics import Array, FeatureStatistics


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with these moments.  Heusel et al. 2017, Eq. 6.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), symmetric in its arguments to rounding and never
    negative. The unit is that of the squared features. Raises ValueError on features of different
    lengths, or when either set has fewer than two vectors.
    """
    if a.total.shape != b.total.shape:
        raise ValueError(f"features of {len(a.total)} and {len(b.total)} numbers cannot be compared")
    gap = a.mean() - b.mean()
    cov_a, cov_b = a.covariance(), b.covariance()
    distance = gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * trace_of_root(cov_a, cov_b)
    return max(float(distance), 0.0)


def trace_of_root(a: Array, b: Array) -> float:
    """Return tr((A B)^(1/2)) of two covariances (d, d).

    A B has the eigenvalues of F^T B F, where A = F F^T: symmetric, so `eigh` finds them, which neither
    fails nor turns complex where a general matrix root does on singular covariances.
    """
    factor = covariance_factor(a)
    eigenvalues = np.linalg.eigvalsh(factor.T @ b @ factor)
    return float(np.sqrt(eigenvalues.clip(min=0)).sum())


def covariance_factor(a: Array) -> Array:
    """Return F (d, rank) with A = F F^T.

    Directions without variance are left out: the root of their rounding errors, 1e-8 each, would add up.
    """
    values, vectors = np.linalg.eigh(a)
    kept = values > values.max(initial=0.0) * len(a) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])
