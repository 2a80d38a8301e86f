"""The Fréchet distance between two Gaussians, which FID is computed by: its value and its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.metrics.estimate import Estimate, check_features, infinitesimal_jackknife
from cm_ray.metrics.statistics import Array, FeatureStatistics

_ROWS = 8192  # samples per batch in `of_features`
GROUPS = 20
"""Groups that samples are divided into, whose statistics give the standard error of a distance, to 16 %."""


@dataclass(frozen=True, slots=True, eq=False)
class FrechetReference:
    """The reference set of Fréchet distances. A distance to it costs one `eigvalsh`."""

    mean: Array
    """Mean of the features (d,)."""
    variance: float
    """Trace of their covariance."""
    factor: Array
    """F (d, rank) with F F^T = covariance."""

    @classmethod
    def of(cls, statistics: FeatureStatistics) -> FrechetReference:
        """Return the reference with these statistics. Raises ValueError on fewer than two vectors."""
        return cls.of_moments(statistics.mean(), statistics.covariance())

    @classmethod
    def of_moments(cls, mean: Array, covariance: Array) -> FrechetReference:
        """Return the reference with this mean (d,) and covariance (d, d)."""
        return cls(mean, float(np.trace(covariance)), covariance_factor(covariance))

    def distance(self, samples: FeatureStatistics) -> float:
        """Return the Fréchet distance of `samples`; see `frechet_distance`."""
        self.check_length(samples)
        gap, covariance = samples.mean() - self.mean, samples.covariance()
        return self.value(gap, float(np.trace(covariance)), trace_of_root(self.factor, covariance))

    def value(self, gap: Array, variance: float, root: float) -> float:
        """Return the distance from the difference of means (d,), tr(C) and tr((A C)^(1/2))."""
        return max(float(gap @ gap) + self.variance + variance - 2 * root, 0.0)

    def check_length(self, samples: FeatureStatistics) -> None:
        """Raise ValueError when the features of `samples` have another length."""
        if samples.total.shape != self.mean.shape:
            raise ValueError(
                f"features of {len(self.mean)} and {len(samples.total)} numbers cannot be compared"
            )


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return the squared 2-Wasserstein distance of the Gaussians with these moments.

    Heusel et al. 2017, Eq. 6.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)); it is symmetric in its arguments up to rounding and never
    negative. Its unit is that of the squared features. Raises ValueError when the features have different
    lengths or a set has fewer than two vectors.
    """
    return FrechetReference.of(a).distance(b)


def frechet_of_features(features: Tensor, reference: FrechetReference) -> Estimate:
    """Return the distance of features (n, d), with the standard error of the infinitesimal jackknife.

    The error treats the reference as fixed. The order of the features does not matter. Costs one `eigh`;
    raises as `frechet_influence` does.
    """
    value, influence = frechet_influence(features, reference)
    return Estimate(value=value, error=infinitesimal_jackknife(influence))


def frechet_of_groups(groups: Sequence[FeatureStatistics], reference: FrechetReference) -> Estimate:
    """Return the distance of all samples together, with a standard error from the influence of each group.

    groups: statistics of groups of independent samples; with `GROUPS` of them the error is right to 16 %.
    Groups that differ, such as one class each, make it too large; `frechet_of_features` needs no groups. The
    error treats the reference as fixed. Costs one `eigh`. Raises UserError on fewer than two groups that
    are not empty.
    """
    groups = [group for group in groups if group.n]
    if len(groups) < 2:
        raise UserError(f"An error of the Fréchet distance needs two groups of samples, not {len(groups)}.")
    whole = sum(groups[1:], start=groups[0])
    gradient = FrechetGradient.at(whole, reference)
    error = infinitesimal_jackknife(gradient.of_groups(groups), whole.n)
    return Estimate(value=gradient.value, error=error)


def frechet_influence(features: Tensor, reference: FrechetReference) -> tuple[float, Array]:
    """Return the distance of features (n, d), and the first-order influence of each sample on it (n,).

    The influence of a sample is the derivative of the distance with respect to the weight of the sample; see
    `FrechetGradient`. Influences sum to 0. Their `infinitesimal_jackknife` is the standard error of the
    distance. Of the sample-by-sample differences of two sets' influences, it is the standard error of the
    difference between two models sampled with the same noise.

    Costs one `eigh`. Raises UserError on fewer than two samples, ValueError on other shapes.
    """
    check_features(features)
    gradient = FrechetGradient.at(FeatureStatistics.of(features), reference)
    return gradient.value, gradient.of_features(features)


@dataclass(frozen=True, slots=True, eq=False)
class FrechetGradient:
    """The distance of a set of samples, and its derivative with respect to the weights of the samples.

    With n samples of mean mu and covariance C, the reference N(m, A) and the features f of a sample, the
    derivative with respect to the weight of this sample, its influence (Efron & Tibshirani 1993, Ch. 21), is

        2 (mu - m)·(f - mu) + n/(n-1) (f - mu)^T (I - T) (f - mu) - tr((I - T) C)

    where T = A^(1/2) (A^(1/2) C A^(1/2))^(-1/2) A^(1/2) is the optimal transport map from N(0, C) to N(0, A),
    and n/(n-1) belongs to the unbiased covariance. The influence is quadratic in f, so its sums over samples
    need only the sums of f and of f f^T.
    """

    n: int
    """Number of samples."""
    value: float
    """Their distance."""
    mean: Array
    """mu (d,)."""
    gap: Array
    """mu - m (d,)."""
    half: Array
    """H (d, rank) with T = H H^T. Where C is singular, T is too; samples stay in the range of their C."""
    level: float
    """tr((I - T) C)."""

    @classmethod
    def at(cls, samples: FeatureStatistics, reference: FrechetReference) -> FrechetGradient:
        """Return the distance of `samples` and its derivative, by one `eigh`.

        Raises ValueError on fewer than two samples, or when the features have another length than the
        reference's.
        """
        reference.check_length(samples)
        covariance, mean = samples.covariance(), samples.mean()
        values, vectors = _positive_spectrum(reference.factor.T @ covariance @ reference.factor)
        half = reference.factor @ (vectors * values**-0.25)
        variance, root = float(np.trace(covariance)), float(np.sqrt(values).sum())  # root is also tr(T C)
        gap = mean - reference.mean
        return cls(samples.n, reference.value(gap, variance, root), mean, gap, half, variance - root)

    def of_features(self, features: Tensor) -> Array:
        """Return the influence (k,) of each of the features (k, d)."""
        influence = []
        for batch in features.detach().split(_ROWS):
            x = batch.cpu().double().numpy() - self.mean
            moved = np.square(x).sum(1) - np.square(x @ self.half).sum(1)
            influence.append(2 * x @ self.gap + self.n / (self.n - 1) * moved - self.level)
        return np.concatenate(influence)

    def of_groups(self, groups: Sequence[FeatureStatistics]) -> Array:
        """Return the sum (g,) of the influences of each group's samples."""
        kept = np.eye(len(self.mean)) - self.half @ self.half.T  # I - T
        pull = kept @ self.mean
        sums = []
        for group in groups:
            centred = group.total - group.n * self.mean
            moved = float(np.vdot(kept, group.outer)) - float((group.total + centred) @ pull)
            sums.append(2 * centred @ self.gap + self.n / (self.n - 1) * moved - group.n * self.level)
        return np.array(sums)


def bias_warning(n: int, dim: int, what: str = "samples") -> str | None:
    """Return a warning when `n` images are too few for a Fréchet distance in `dim` features; None otherwise.

    what: what the images are, as a word; too few in the reference bias the distance as much as too few
    samples.
    """
    if n > dim:
        return None
    return (
        f"{n} {what} are not more than {dim} features, so their covariance is singular and the Fréchet "
        f"distance far too large; compare it only with distances of equally many, or take more."
    )


def trace_of_root(factor: Array, covariance: Array) -> float:
    """Return tr((A B)^(1/2)) for A = factor factor^T and a covariance B (d, d).

    A B has the eigenvalues of F^T B F, which is symmetric. So `eigvalsh` finds them, which works for singular
    covariances, where a general matrix square root fails or turns complex.
    """
    values = np.linalg.eigvalsh(factor.T @ covariance @ factor)
    return float(np.sqrt(values[_positive(values)]).sum())


def covariance_factor(a: Array) -> Array:
    """Return F (d, rank) with A = F F^T."""
    values, vectors = _positive_spectrum(a)
    return vectors * np.sqrt(values)


def _positive_spectrum(a: Array) -> tuple[Array, Array]:
    """Return the positive eigenvalues (rank,) of a semidefinite matrix, and their eigenvectors (d, rank)."""
    values, vectors = np.linalg.eigh(a)
    kept = _positive(values)
    return values[kept], vectors[:, kept]


def _positive(eigenvalues: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return a mask (d,) of the eigenvalues above rounding error; roots of the others would add up."""
    return eigenvalues > eigenvalues.max(initial=0.0) * len(eigenvalues) * np.finfo(np.float64).eps
