"""Noisy smooth curves of the published shapes, which cost samples as a network does.

A curve falls from the score of one step at both ends of the grid to that of two steps at the published point.
Its width is that of CIFAR-10's, about 0.1 of the grid, or more; it leans to a side. Noise is drawn by the unit
of work and paired over candidates: mostly common to all, partly to neighbours, and a little of each one's own.
"""

from dataclasses import dataclass

import numpy as np

UNIT = 25
"""Samples of a unit of work."""
REPLICATES = 48

PUBLISHED = {  # grid, second point as an ascending index, scores of one step and of two
    "cifar10_cd": (18, 6, 3.55, 2.93),
    "imagenet64_cd": (40, 17, 6.20, 4.70),
    "bedroom256_cd": (40, 22, 7.80, 5.22),
    "cat256_ct": (151, 88, 20.7, 11.7),
    "bedroom256_ct": (151, 83, 16.0, 7.85),
    "imagenet64_ct": (201, 94, 13.0, 11.1),
}


def published_curve(name, rng):
    """The true scores of a curve at every index, of a random width, lean and place."""
    size, at, one_step, two_steps = PUBLISHED[name]
    z = (np.linspace(0, 1, size) - at / (size - 1) - rng.uniform(-0.03, 0.03)) / rng.uniform(0.1, 0.2)
    z /= 1 + rng.uniform(-0.3, 0.3) * np.tanh(z)
    return two_steps + (one_step - two_steps) * (1 - np.exp(-(z**2) / 2))


@dataclass(frozen=True)
class Units:
    """Scores of units of work, in their order: a monoid by concatenation."""

    values: np.ndarray

    def __add__(self, other):
        return Units(np.concatenate([self.values, other.values]))


class NoisyCurve:
    """A curve that is measured with noise, for budgets up to `budget` and as many fresh samples."""

    def __init__(
        self, curve, rng, *, deviation, budget=10_000, own=0.05, near=0.35, length=0.15, bias=10_000.0
    ):
        """deviation: of a score of 10,000 samples.  own, near: shares of the variance."""
        self.curve, self.bias, self.requests = curve, bias, []
        x, units = np.linspace(0, 1, len(curve)), 2 * budget // UNIT
        kernel = (
            near * np.exp(-(((x[:, None] - x) / length) ** 2) / 2) + (1 - near - own) + own * np.eye(len(x))
        )
        values, vectors = np.linalg.eigh(kernel)
        normals = rng.standard_normal((units, len(x)))
        noise = normals @ (vectors * np.sqrt(values.clip(min=0))).T
        self.units = curve + deviation * np.sqrt(10_000 / UNIT) * noise
        self.weights = rng.exponential(size=(units, REPLICATES))

    def sample(self, requests):
        self.requests += requests
        return [
            Units(self.units[r.first // UNIT : (r.first + r.count) // UNIT, r.candidate]) for r in requests
        ]

    def score(self, partial):
        n = len(partial.values)
        weights = self.weights[:n]
        replicates = weights.T @ partial.values / weights.sum(0)
        return np.array([partial.values.mean(), *replicates]) + self.bias / (n * UNIT)

    def value(self, candidate, samples):
        """The score of so many samples."""
        return self.units[: samples // UNIT, candidate].mean()
