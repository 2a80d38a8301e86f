"""The Fréchet distance between two Gaussians, the number behind FID: its value, errors and extrapolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
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

_ROWS = 8192  # samples whose influence is computed at once


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
        self.check_length(samples)
        gap, covariance = samples.mean() - self.mean, samples.covariance()
        return self.value(gap, float(np.trace(covariance)), trace_of_root(self.factor, covariance))

    def value(self, gap: Array, variance: float, root: float) -> float:
        """Return the distance from its parts: the means' difference (d,), tr(C) and tr((A C)^(1/2))."""
        return max(float(gap @ gap) + self.variance + variance - 2 * root, 0.0)

    def check_length(self, samples: FeatureStatistics) -> None:
        """Raise ValueError when the features of `samples` have another length."""
        if samples.total.shape != self.mean.shape:
            raise ValueError(
                f"features of {len(self.mean)} and {len(samples.total)} numbers cannot be compared"
            )


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


def frechet_influence(features: Tensor, reference: FrechetReference) -> tuple[float, Array]:
    """Return the distance of features (n, d), and each sample's first-order influence on it (n,).

    The influence of a sample is the derivative of the distance when its share of the whole grows (the
    infinitesimal jackknife; Efron & Tibshirani 1993, Ch. 21). With mean mu, covariance C, reference
    N(m, A) and f = features_i:

        2 (mu - m)·(f - mu) + n/(n-1) (f - mu)^T (I - T) (f - mu) - tr((I - T) C)

    where T = A^(1/2) (A^(1/2) C A^(1/2))^(-1/2) A^(1/2) carries N(0, C) to N(0, A) at the least cost, and
    n/(n-1) belongs to the unbiased covariance. Influences add up to 0. Their standard deviation over sqrt(n)
    is the distance's standard error; that of the differences of two sets' influences, sample by sample, is
    the standard error of the difference of two models sampled with the same noise.

    Costs one `eigh`. Raises UserError on fewer than two samples, ValueError on other shapes.
    """
    checked_features(features)
    samples = FeatureStatistics.of(features)
    reference.check_length(samples)
    covariance, gap = samples.covariance(), samples.mean() - reference.mean
    values, vectors = _positive_spectrum(reference.factor.T @ covariance @ reference.factor)
    # T = half half^T. Where C is singular, so is the root; samples do not leave the range of their own C.
    half = reference.factor @ (vectors * values**-0.25)
    variance, root = float(np.trace(covariance)), float(np.sqrt(values).sum())  # root is tr(T C), too
    influence = []
    for part in features.detach().split(_ROWS):
        x = part.cpu().double().numpy() - samples.mean()
        moved = np.square(x).sum(1) - np.square(x @ half).sum(1)
        influence.append(2 * x @ gap + samples.n / (samples.n - 1) * moved - (variance - root))
    return reference.value(gap, variance, root), np.concatenate(influence)


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
    checked_features(features)
    n = len(features)
    check_extrapolation(n, features.shape[1])
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


def check_extrapolation(n: int, dim: int) -> None:
    """Raise UserError when `n` samples of `dim` features are too few for `frechet_infinity`."""
    if n // 10 <= dim:
        raise UserError(
            f"FD-infinity extrapolates from a tenth of the samples, and {n} samples are not more than "
            f"10 x {dim} features; take more."
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
    values = np.linalg.eigvalsh(factor.T @ covariance @ factor)
    return float(np.sqrt(values[_positive(values)]).sum())


def covariance_factor(a: Array) -> Array:
    """Return F (d, rank) with A = F F^T."""
    values, vectors = _positive_spectrum(a)
    return vectors * np.sqrt(values)


def _positive_spectrum(a: Array) -> tuple[Array, Array]:
    """Return the eigenvalues (rank,) and eigenvectors (d, rank) of a semidefinite matrix, but for zeros."""
    values, vectors = np.linalg.eigh(a)
    kept = _positive(values)
    return values[kept], vectors[:, kept]


def _positive(eigenvalues: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Tell which eigenvalues (d,) are above 0 by more than rounding, whose roots, 1e-8 each, would add up."""
    return eigenvalues > eigenvalues.max(initial=0.0) * len(eigenvalues) * np.finfo(np.float64).eps


def _times(statistics: FeatureStatistics, k: int) -> FeatureStatistics:
    """Return the statistics of `k` copies of a set."""
    return FeatureStatistics(k * statistics.n, k * statistics.total, k * statistics.outer)
