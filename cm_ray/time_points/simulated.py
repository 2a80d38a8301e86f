"""Simulated noisy curves with the published shapes, which cost samples as a network does, to test a search.

A curve falls from the score of one step at both ends of the grid to that of two steps at the published point.
Its width is that of CIFAR-10's curve, about 0.1 of the grid, or up to twice that, and it is asymmetric. Noise
is drawn per group of samples and paired over candidates: most of it is common to all candidates, some is
common to neighbours, and a little is independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cm_ray.time_points.sample_budget import Array, SampleRange

GROUP = 25
"""Samples in a group; the bootstrap resamples groups."""
REPLICATES = 48
"""Number of bootstrap replicates."""


class PublishedValley(NamedTuple):
    """A published minimum of FID over the second time point."""

    size: int
    """Boundaries of the grid, N."""
    at: int
    """The second time point, as an ascending index."""
    one_step: float
    """FID of one step, which the curve has far from the minimum."""
    two_steps: float
    """FID of two steps, which the curve has at the minimum."""


PUBLISHED = {
    "cifar10_cd": PublishedValley(18, 6, 3.55, 2.93),
    "imagenet64_cd": PublishedValley(40, 17, 6.20, 4.70),
    "bedroom256_cd": PublishedValley(40, 22, 7.80, 5.22),
    "cat256_ct": PublishedValley(151, 88, 20.7, 11.7),
    "bedroom256_ct": PublishedValley(151, 83, 16.0, 7.85),
    "imagenet64_ct": PublishedValley(201, 94, 13.0, 11.1),
}
"""Song et al. 2023, tables 1 and 2; the time points are those of OpenAI's scripts/launch.sh."""


def published_curve(name: str, rng: np.random.Generator) -> Array:
    """Return true scores (N,) of a curve like a published one, with random width, asymmetry and place."""
    shape = PUBLISHED[name]
    place = shape.at / (shape.size - 1) + rng.uniform(-0.03, 0.03)
    z = (np.linspace(0, 1, shape.size) - place) / rng.uniform(0.1, 0.2)
    z /= 1 + rng.uniform(-0.3, 0.3) * np.tanh(z)
    return np.asarray(shape.two_steps + (shape.one_step - shape.two_steps) * (1 - np.exp(-(z**2) / 2)))


@dataclass(frozen=True, eq=False)
class GroupScores:
    """Scores of groups of samples, in order; ``a + b`` concatenates."""

    values: Array

    def __add__(self, other: GroupScores) -> GroupScores:
        return GroupScores(np.concatenate([self.values, other.values]))


class NoisyCurve:
    """A `CandidateScorer` of a curve under noise, for up to `budget` samples and as many fresh ones."""

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

        deviation: standard deviation of a score of 10,000 samples, unpaired; it falls with the root of their
        number. own, near: shares of its variance that are independent for each candidate, and common to
        neighbours within a `length` (a share of the grid); the rest is common to all.  bias: n samples score
        too high by bias / n.
        """
        self.curve, self.bias = curve, bias
        self.ranges: list[SampleRange] = []
        """All ranges that were sampled, in order."""
        x, units = np.linspace(0, 1, len(curve)), 2 * budget // GROUP
        kernel = (
            near * np.exp(-(((x[:, None] - x) / length) ** 2) / 2) + 1 - near - own + own * np.eye(len(x))
        )
        values, vectors = np.linalg.eigh(kernel)
        noise = rng.standard_normal((units, len(x))) @ (vectors * np.sqrt(values.clip(min=0))).T
        self._units = curve + deviation * np.sqrt(10_000 / GROUP) * noise
        self._weights = rng.exponential(size=(units, REPLICATES))

    def sample(self, ranges: Sequence[SampleRange]) -> list[GroupScores]:
        """Return the groups of each range; counts must be multiples of `GROUP`."""
        self.ranges += ranges
        return [
            GroupScores(self._units[r.first // GROUP : (r.first + r.count) // GROUP, r.candidate])
            for r in ranges
        ]

    def score(self, partial: GroupScores) -> Array:
        """Return the mean and the replicates of a Bayesian bootstrap (1 + replicates,). Rubin 1981."""
        n = len(partial.values)
        weights = self._weights[:n]
        replicates = weights.T @ partial.values / weights.sum(0)
        return np.array([partial.values.mean(), *replicates]) + self.bias / (n * GROUP)
