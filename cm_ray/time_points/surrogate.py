"""A smooth curve through noisy scores: a Gaussian process on candidates that lie side by side.

Scores of neighbours tell of each other, so that the minimum of the curve is known far better than the order
of two neighbours: points where the curve has risen pin it down. Rasmussen & Williams 2006, chapters 2 and 5.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cm_ray.time_points.sample_budget import Array, Difference

Places = NDArray[np.intp]

LENGTHS = (0.1, 0.15, 0.22, 0.32, 0.45)
"""Lengths over which a curve may bend, as shares of the range. CIFAR-10's bends over 0.1 to 0.15."""
HEIGHTS = (0.5, 1.0, 2.0, 4.0)
"""Standard deviations of a curve, as multiples of that of the scores."""
ROUGHNESS = (0.0, 0.03, 0.1, 0.3)
"""Standard deviations by which every place of a curve is off the smooth one, likewise: a model that was
trained on few time points is better at some of them than between."""
_LEVEL = 100.0
"""Variance of the curve's mean level, as a multiple of the curve's own: it is as good as unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What is known of a curve at n places: a joint normal distribution."""

    mean: Array
    """Expected values (n,)."""
    covariance: Array
    """Their covariance (n, n)."""

    @property
    def lowest(self) -> int:
        """The place with the lowest expected value."""
        return int(self.mean.argmin())

    def difference(self, a: int, b: int) -> Difference:
        """Return the curve at place a less that at place b."""
        variance = self.covariance[a, a] + self.covariance[b, b] - 2 * self.covariance[a, b]
        return Difference(float(self.mean[a] - self.mean[b]), float(np.sqrt(max(variance, 0.0))))

    def expected_regret(self, normals: Array) -> float:
        """Return by how much the curve is expected to be above its minimum at its lowest place.

        normals: standard normal numbers (draws, n).
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T  # the symmetric one does not hang on signs
        curves = self.mean + normals @ root
        return float((curves[:, self.lowest] - curves.min(1)).mean())

    def valley(self, share: float) -> tuple[int, int]:
        """Return the ends of the places around the lowest where the curve has risen by less than a share."""
        beyond = np.flatnonzero(self.mean > self.mean.min() + share * np.ptp(self.mean))
        below, above = beyond[beyond < self.lowest], beyond[beyond > self.lowest]
        return int(below.max(initial=-1)) + 1, int(above.min(initial=len(self.mean))) - 1


def fitted(size: int, places: Places, values: Array, noise: Array) -> Curve:
    """Return the curve at places 0 .. size - 1 given values (k,) at some of them (k,).

    noise: covariance of the values (k, k).  The kernel is the squared exponential and a white one, with the
    likeliest of `LENGTHS`, `HEIGHTS` and `ROUGHNESS`.
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
    """Return the log marginal likelihood of values around 0, but for a constant."""
    factor = np.linalg.cholesky(_covariance(at, at, length, variance, rough) + noise)
    white = np.linalg.solve(factor, values)
    return float(-(white @ white) / 2 - np.log(factor.diagonal()).sum())
