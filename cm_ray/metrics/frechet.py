"""The Fréchet distance between two Gaussians, the number behind FID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.errors import UserError
from cm_ray.metrics.measured import (
    REPLICATES,
    Counts,
    Measured,
    checked_features,
    repeated,
    standard_error,
)
from cm_ray.metrics.statistics import Array, FeatureStatistics


@dataclass(frozen=True, slots=True, eq=False)
class FrechetReference:
    """A set to measure distances to, with its root at hand: each distance costs one `eigvalsh` only."""

    n: int
    """Feature vectors that the moments were taken from."""
    mean: Array
    """Their mean (d,)."""
    variance: float
    """Trace of their covariance."""
    factor: Array
    """F (d, rank) with F F^T = covariance."""

    @classmethod
    def of(cls, statistics: FeatureStatistics) -> FrechetReference:
        """Return the reference with these statistics. Raises ValueError on fewer than two vectors."""
        covariance = statistics.covariance()
        return cls(
            statistics.n, statistics.mean(), float(np.trace(covariance)), covariance_factor(covariance)
        )

    def distance(self, samples: FeatureStatistics) -> float:
        """Return the Fréchet distance of `samples`, see `frechet_distance`."""
        if samples.total.shape != self.mean.shape:
            raise ValueError(
                f"features of {len(self.mean)} and {len(samples.total)} numbers cannot be compared"
            )
        gap, covariance = self.mean - samples.mean(), samples.covariance()
        root = trace_of_root(self.factor, covariance)
        return max(float(gap @ gap + self.variance + np.trace(covariance) - 2 * root), 0.0)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with these moments.  Heusel et al. 2017, Eq. 6.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), symmetric in its arguments to rounding and never
    negative. The unit is that of the squared features. Raises ValueError on features of different
    lengths, or when either set has fewer than two vectors.
    """
    return FrechetReference.of(a).distance(b)


def frechet_with_error(
    groups: Sequence[FeatureStatistics],
    reference: FrechetReference,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Measured:
    """Return the distance of all groups' samples together, with a bootstrap over the groups.

    groups: statistics of equally many independent samples each, 20 or more of them for an error worth the
    name. The reference counts as fixed. Each replicate costs one distance. Raises UserError on fewer than
    two groups.
    """
    if len(groups) < 2:
        raise UserError(f"An error of the Fréchet distance needs two groups of samples, not {len(groups)}.")
    nothing = FeatureStatistics.zero(len(reference.mean))

    def statistic(counts: Counts) -> float:
        drawn = (_times(group, int(k)) for group, k in zip(groups, counts, strict=True) if k)
        return reference.distance(sum(drawn, start=nothing))

    error = standard_error(statistic, len(groups), replicates=replicates, seed=seed)
    return Measured(value=reference.distance(sum(groups, start=nothing)), error=error)


def frechet_infinity(
    features: Tensor,
    reference: FrechetReference,
    *,
    points: int = 15,
    replicates: int = 20,
    seed: int = 0,
) -> Measured:
    """Return the distance that infinitely many samples would have.  Chong & Forsyth 2020, Sec. 4.

    The distance of n samples is that of infinitely many plus a constant over n, as far as n is well above
    the dimension: distances of random subsets of n / 10 to n samples are fitted by a line in 1 / n, whose
    value at 0 is the result. It may be negative. What the reference's own size biases stays in.

    features: (n, d) of the samples.  points: subset sizes; each replicate costs as many distances.  Raises
    UserError when a tenth of n is not more than d: such distances do not lie on a line.
    """
    n, d = features.shape
    if n // 10 <= d:
        raise UserError(
            f"FD-infinity extrapolates from a tenth of the samples, and {n} samples are not more than "
            f"10 x {d} features; take more."
        )
    checked_features(features)
    sizes = np.linspace(n // 10, n, points).round().astype(int)
    rng = np.random.default_rng(derived_seed(seed, "FD-infinity"))
    subsets = [rng.permutation(n)[:size] for size in sizes]

    def statistic(counts: Counts) -> float:
        drawn = repeated(features, counts)
        values = [reference.distance(FeatureStatistics.of(drawn[subset])) for subset in subsets]
        return float(np.polyfit(1 / sizes, values, 1)[1])

    return Measured(
        value=statistic(np.ones(n, np.int64)),
        error=standard_error(statistic, n, replicates=replicates, seed=seed),
        settings={"points": points, "subset_seed": seed},
    )


def bias_warning(n: int, dim: int) -> str | None:
    """Return the sentence that a Fréchet distance of `n` samples in `dim` features needs, if it needs one."""
    if n > dim:
        return None
    return (
        f"{n} samples are not more than {dim} features: their covariance is singular and the Fréchet "
        f"distance far too great; compare it only with distances of as many samples, or take more."
    )


def trace_of_root(factor: Array, covariance: Array) -> float:
    """Return tr((A B)^(1/2)) of A = factor factor^T and a covariance B (d, d).

    A B has the eigenvalues of F^T B F: symmetric, so `eigvalsh` finds them, which neither fails nor turns
    complex where a general matrix root does on singular covariances.
    """
    eigenvalues = np.linalg.eigvalsh(factor.T @ covariance @ factor)
    return float(np.sqrt(eigenvalues.clip(min=0)).sum())


def covariance_factor(a: Array) -> Array:
    """Return F (d, rank) with A = F F^T.

    Directions without variance are left out: the root of their rounding errors, 1e-8 each, would add up.
    """
    values, vectors = np.linalg.eigh(a)
    kept = values > values.max(initial=0.0) * len(a) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def _times(statistics: FeatureStatistics, k: int) -> FeatureStatistics:
    """Return the statistics of `k` copies of a set."""
    return FeatureStatistics(k * statistics.n, k * statistics.total, k * statistics.outer)
