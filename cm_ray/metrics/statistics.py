"""Count, mean and covariance of features. Statistics of parts of a data set add up to those of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureStatistics:
    """Count, sum and sum of outer products of feature vectors, in float64.

    `a + b` is the statistics of both sets together; `zero(d)` is neutral. Workers send these instead of
    features.
    """

    n: int
    """Number of feature vectors."""
    total: Array
    """Sum of the vectors (d,)."""
    outer: Array
    """Sum of their outer products (d, d)."""

    @classmethod
    def zero(cls, d: int) -> FeatureStatistics:
        """Return the statistics of no vectors of `d` features."""
        return cls(0, np.zeros(d), np.zeros((d, d)))

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """Return the statistics of a batch (b, d), summed in float64 on its device.

        Raises ValueError on another shape, or on a feature that is not finite, since it would spoil every
        sum.
        """
        if features.ndim != 2:
            raise ValueError(f"features must be (b, d), not {tuple(features.shape)}")
        x = features.detach().double()
        if not bool(x.isfinite().all()):
            raise ValueError("a feature is not finite")
        return cls(len(x), x.sum(0).cpu().numpy(), (x.T @ x).cpu().numpy())

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        """Return the statistics of both sets. Raises ValueError when the features have different lengths."""
        if self.total.shape != other.total.shape:
            raise ValueError(f"{len(self.total)} features cannot be merged with {len(other.total)}")
        return FeatureStatistics(self.n + other.n, self.total + other.total, self.outer + other.outer)

    def mean(self) -> Array:
        """Return the mean (d,). Raises ValueError when there are no vectors."""
        if self.n < 1:
            raise ValueError("a mean needs at least one feature vector")
        return self.total / self.n

    def covariance(self) -> Array:
        """Return the unbiased covariance (d, d), over n - 1. Raises ValueError when n < 2."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least two feature vectors, not {self.n}")
        mean = self.mean()
        covariance = (self.outer - self.n * np.outer(mean, mean)) / (self.n - 1)
        return (covariance + covariance.T) / 2
