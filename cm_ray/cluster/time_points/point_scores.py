"""Scores of time points, measured on Ray with an on-disk cache: the callback of the search."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cm_ray.cluster.pool.cache import ResultCache
from cm_ray.cluster.pool.result import Outputs, SampleResult
from cm_ray.core.noise import derived_seed
from cm_ray.drawing.requests import Request
from cm_ray.metrics.estimate import infinitesimal_jackknife
from cm_ray.metrics.frechet import FrechetReference, frechet_influence
from cm_ray.metrics.statistics import Array
from cm_ray.runs.console import shown
from cm_ray.time_points.greedy import Points
from cm_ray.time_points.noisy_search import PointSampleRange

OUTPUTS: Outputs = frozenset(["features"])
"""Actors return features instead of statistics: paired errors need the influence of each sample on the score,
and the features of a few thousand samples are smaller than the outer products of 2,048 features."""

REPLICATES = 200
"""Number of bootstrap replicates. They are linear in the influences of the samples, and therefore cheap."""


@dataclass(frozen=True, slots=True)
class PointSamples:
    """Samples of time points, with their features in files; ``a + b`` concatenates them."""

    points: Points
    first: int
    """Index of the first sample."""
    count: int
    files: tuple[Path, ...]

    def __add__(self, other: PointSamples) -> PointSamples:
        """Append the next samples of the same points. Raises ValueError on samples that do not follow."""
        if other.points != self.points or other.first != self.first + self.count:
            raise ValueError(f"samples of {other.points} from {other.first} do not follow those of {self}")
        return PointSamples(self.points, self.first, self.count + other.count, self.files + other.files)

    def features(self) -> Tensor:
        """Read the features, float32 (count, dim)."""
        results = [result for file in self.files if (result := SampleResult.load(file, OUTPUTS))]
        return torch.cat([result.features for result in results if result.features is not None])


@dataclass(frozen=True, slots=True)
class Measurement:
    """A score of time points."""

    of: PointSamples
    """The samples that were scored."""
    value: float
    error: float
    """Standard error of the score."""


class PointScores:
    """Scores time points by Fréchet distance; implements `cm_ray.time_points.noisy_search.PointScorer`.

    Sample i has the same noise and label for all points. So the influences of the samples on two scores are
    paired, and the replicates resample the same indices for all points.
    """

    def __init__(
        self,
        cache: ResultCache,
        reference: FrechetReference,
        request: Callable[[PointSampleRange], Request],
        report: Callable[[Measurement], None],
    ) -> None:
        """request: converts a range of samples to a request of the pool.  report: gets every score."""
        self._cache, self._reference = cache, reference
        self._request, self._report = request, report

    def sample(self, ranges: Sequence[PointSampleRange]) -> list[PointSamples]:
        """Sample the ranges that are not cached, all of them together; return the samples of every range."""
        requests = [self._request(one) for one in ranges]
        with shown("image") as progress:
            for _ in self._cache.generate_all(requests, progress):
                pass  # the results are on disk
        return [
            PointSamples(one.points, one.first, one.count, (self._cache.file(request),))
            for one, request in zip(ranges, requests, strict=True)
        ]

    def score(self, samples: PointSamples) -> Array:
        """Return the Fréchet distance and its bootstrap replicates (1 + REPLICATES,)."""
        value, influence = frechet_influence(samples.features(), self._reference)
        self._report(Measurement(samples, value, infinitesimal_jackknife(influence)))
        return np.concatenate([[value], value + resampled_means(influence)])


def resampled_means(influence: Array) -> Array:
    """Return the means of bootstrap resamples of n influences (REPLICATES,); equal n, equal resamples."""
    n = len(influence)
    return np.array([influence[indices].mean() for indices in _resamples(n)])


@functools.lru_cache(maxsize=8)
def _resamples(n: int) -> np.ndarray:
    rng = np.random.default_rng(derived_seed(n, "resamples"))
    return rng.integers(0, n, (REPLICATES, n), dtype=np.int32)
