"""A smooth curve through noisy scores: a Gaussian process over neighbouring candidates.

Scores of neighbours inform each other, so the minimum of the curve is known far better than the order of two
neighbours: points where the curve has risen locate it. Rasmussen & Williams 2006, chapters 2 and 5.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cm_ray.time_points.sample_budget import Array, Difference

Places = NDArray[np.intp]

LENGTHS = (0.1, 0.15, 0.22, 0.32, 0.45)
"""Length scales of a curve, as shares of the range. That of CIFAR-10's curve is 0.1 to 0.15."""
HEIGHTS = (0.5, 1.0, 2.0, 4.0)
"""Standard deviations of a curve, as multiples of that of the scores."""
ROUGHNESS = (0.0, 0.03, 0.1, 0.3)
"""Standard deviations of every place from the smooth curve, as multiples of that of the scores.

A model that was trained on few time points is better at some of them than in between.
"""
_LEVEL = 100.0
"""Variance of the curve's mean, as a multiple of the curve's own: large, as the mean is unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A joint normal distribution of the values of a curve at n places."""

    mean: Array
    """Expected values (n,)."""
    covariance: Array
    """Covariance of the values (n, n)."""

    @property
    def lowest(self) -> int:
        """The place with the lowest expected value."""
        return int(self.mean.argmin())

    def difference(self, a: int, b: int) -> Difference:
        """Return the value at place a minus the value at place b."""
        variance = self.covariance[a, a] + self.covariance[b, b] - 2 * self.covariance[a, b]
        return Difference(float(self.mean[a] - self.mean[b]), float(np.sqrt(max(variance, 0.0))))

    def expected_regret(self, normals: Array) -> float:
        """Return the expected height, at the lowest place, above the minimum of the curve.

        normals: standard normal numbers (draws, n).
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root = (
            vectors * np.sqrt(values.clip(min=0))
        ) @ vectors.T  # the symmetric root does not depend on signs
        curves = self.mean + normals @ root
        return float((curves[:, self.lowest] - curves.min(1)).mean())

    def valley(self, share: float) -> tuple[int, int]:
        """Return the first and last place of the range where the curve has risen by less than a share."""
        beyond = np.flatnonzero(self.mean > self.mean.min() + share * np.ptp(self.mean))
        below, above = beyond[beyond < self.lowest], beyond[beyond > self.lowest]
        return int(below.max(initial=-1)) + 1, int(above.min(initial=len(self.mean))) - 1


def fitted(size: int, places: Places, values: Array, noise: Array) -> Curve:
    """Return the curve at places 0 .. size - 1, given values (k,) at some of the places (k,).

    noise: covariance of the values (k, k).  The kernel is a squared exponential plus white noise, with the
    most likely of `LENGTHS`, `HEIGHTS` and `ROUGHNESS`.
    """
    x = np.arange(size) / max(size - 1, 1)
    at, centre, spread = x[places], values.mean(), max(float(values.std()), 1e-12)
    noise = noise + np.eye(len(places)) * (1e-3 * spread) ** 2
    kernels = [
        (length, (height * spread) ** 2, (rough * spread) ** 2)
        for rough, length, height in itertools.product(ROUGHNESS, LENGTHS, HEIGHTS)
    ]
    kernel = max(kernels, key=lambda kernel: _likelihood(at, values - centre, noise, *kernel))
    across = _covariance(at, x, *kernel)
    gain = np.linalg.solve(_covariance(at, at, *kernel) + noise, across).T  # (size, k)
    covariance = _covariance(x, x, *kernel) - gain @ across
    return Curve(centre + gain @ (values - centre), (covariance + covariance.T) / 2)


def _covariance(a: Array, b: Array, length: float, variance: float, rough: float) -> Array:
    apart = a[:, None] - b
    return np.asarray(variance * (np.exp(-((apart / length) ** 2) / 2) + _LEVEL) + rough * (apart == 0))


def _likelihood(
    at: Array, values: Array, noise: Array, length: float, variance: float, rough: float
) -> float:
    """Return the log marginal likelihood of values around 0, up to a constant."""
    factor = np.linalg.cholesky(_covariance(at, at, length, variance, rough) + noise)
    white = np.linalg.solve(factor, values)
    return float(-(white @ white) / 2 - np.log(factor.diagonal()).sum())
