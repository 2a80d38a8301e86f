"""Noisy curves of the published shapes that cost samples as a network does, to try a search on.

A curve falls from the score of one step at both ends of the grid to that of two steps at the published
point. Its width is that of CIFAR-10's, about 0.1 of the grid, or up to twice that; it leans to a side. Noise
is drawn by the unit of work and paired over candidates: most of it is common to all, some to neighbours, and
a little is each one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cm_ray.time_points.sample_budget import Array, Request

UNIT = 25
"""Samples of a unit of work, of which the bootstrap draws."""
REPLICATES = 48
"""Bootstrap replicates."""


class Shape(NamedTuple):
    """A published valley."""

    size: int
    """Boundaries of the grid, N."""
    at: int
    """The second time point, as an ascending index."""
    one_step: float
    """FID of one step, far from the valley."""
    two_steps: float
    """FID of two steps, in the valley."""


PUBLISHED = {
    "cifar10_cd": Shape(18, 6, 3.55, 2.93),
    "imagenet64_cd": Shape(40, 17, 6.20, 4.70),
    "bedroom256_cd": Shape(40, 22, 7.80, 5.22),
    "cat256_ct": Shape(151, 88, 20.7, 11.7),
    "bedroom256_ct": Shape(151, 83, 16.0, 7.85),
    "imagenet64_ct": Shape(201, 94, 13.0, 11.1),
}
"""Song et al. 2023, tables 1 and 2; the time points of OpenAI's scripts/launch.sh."""


def published_curve(name: str, rng: np.random.Generator) -> Array:
    """Return true scores (N,) of a valley like a published one, of a random width, lean and place."""
    shape = PUBLISHED[name]
    place = shape.at / (shape.size - 1) + rng.uniform(-0.03, 0.03)
    z = (np.linspace(0, 1, shape.size) - place) / rng.uniform(0.1, 0.2)
    z /= 1 + rng.uniform(-0.3, 0.3) * np.tanh(z)
    return np.asarray(shape.two_steps + (shape.one_step - shape.two_steps) * (1 - np.exp(-(z**2) / 2)))


@dataclass(frozen=True, eq=False)
class Units:
    """Scores of units of work, in their order: a monoid by concatenation."""

    values: Array

    def __add__(self, other: Units) -> Units:
        return Units(np.concatenate([self.values, other.values]))


class NoisyCurve:
    """`Scores` of a curve under noise, for budgets up to `budget` and as many fresh samples."""

    def __init__(
        self,
        curve: Array,
        rng: np.random.Generator,
        *,
        deviation: float,
        budget: int = 10_000,
        own: float = 0.05,
        near: float = 0.35,
        length: float = 0.15,
        bias: float = 10_000.0,
    ) -> None:
        """Draw the noise of every candidate and sample.

        deviation: of a score of 10,000 samples, unpaired; it falls as their root.  own, near: the shares of
        its variance that are each candidate's own and common to neighbours within a `length`, as a share of
        the grid; the rest is common to all.  bias: n samples score too high by bias / n.
        """
        self.curve, self.bias = curve, bias
        self.requests: list[Request] = []
        """All that was sampled, in order."""
        x, units = np.linspace(0, 1, len(curve)), 2 * budget // UNIT
        kernel = (
            near * np.exp(-(((x[:, None] - x) / length) ** 2) / 2) + 1 - near - own + own * np.eye(len(x))
        )
        values, vectors = np.linalg.eigh(kernel)
        noise = rng.standard_normal((units, len(x))) @ (vectors * np.sqrt(values.clip(min=0))).T
        self._units = curve + deviation * np.sqrt(10_000 / UNIT) * noise
        self._weights = rng.exponential(size=(units, REPLICATES))

    def sample(self, requests: Sequence[Request]) -> list[Units]:
        """Return the units of each request; counts are whole units."""
        self.requests += requests
        return [
            Units(self._units[r.first // UNIT : (r.first + r.count) // UNIT, r.candidate]) for r in requests
        ]

    def score(self, partial: Units) -> Array:
        """Return the mean and the replicates of a Bayesian bootstrap, Rubin 1981 (1 + replicates,)."""
        n = len(partial.values)
        weights = self._weights[:n]
        replicates = weights.T @ partial.values / weights.sum(0)
        return np.array([partial.values.mean(), *replicates]) + self.bias / (n * UNIT)
