"""What time points score, measured on Ray: the callback of the search, with a memory on disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cm_ray.cluster.pool.cache import Remembered
from cm_ray.cluster.pool.result import Gathered, Wanted
from cm_ray.core.noise import derived_seed
from cm_ray.metrics.frechet import FrechetReference, frechet_influence
from cm_ray.metrics.measured import infinitesimal_jackknife
from cm_ray.metrics.statistics import Array
from cm_ray.runs.console import shown
from cm_ray.sampling.requests import Request
from cm_ray.time_points.greedy import Points
from cm_ray.time_points.noisy_search import PointRequest

WANTED: Wanted = frozenset(["features"])
"""Features come back, not their statistics: paired errors are made of each sample's influence on the score,
and the features of some thousand samples are smaller than the outer products of 2,048 of them."""

REPLICATES = 200
"""Of the bootstrap. Its statistic is linear in the samples' influences, so that they cost next to nothing."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Samples of time points, whose features lie in files; ``a + b`` is those of a and then those of b."""

    points: Points
    first: int
    """Index of the first sample."""
    count: int
    files: tuple[Path, ...]

    def __add__(self, other: Kept) -> Kept:
        """Append the next samples of the same points."""
        if other.points != self.points or other.first != self.first + self.count:
            raise ValueError(f"samples of {other.points} from {other.first} do not follow those of {self}")
        return Kept(self.points, self.first, self.count + other.count, self.files + other.files)

    def features(self) -> Tensor:
        """Read the features (count, dim)."""
        parts = [gathered for file in self.files if (gathered := Gathered.load(file, WANTED))]
        return torch.cat([part.features for part in parts if part.features is not None])


@dataclass(frozen=True, slots=True)
class Measurement:
    """A score of time points."""

    of: Kept
    value: float
    error: float
    """Its standard error."""


class PointScores:
    """Scores time points by Fréchet distance; `cm_ray.time_points.noisy_search.PointScores`.

    Samples i of all points share noise and label, so their influences on the scores pair, sample by sample,
    and the replicates resample the same samples for all points.
    """

    def __init__(
        self,
        remembered: Remembered,
        reference: FrechetReference,
        request: Callable[[PointRequest], Request],
        tell: Callable[[Measurement], None],
    ) -> None:
        """request: makes a request for samples of one for points.  tell: is told of every score."""
        self._remembered, self._reference = remembered, reference
        self._request, self._tell = request, tell

    def sample(self, requests: Sequence[PointRequest]) -> list[Kept]:
        """Sample what is not remembered, all requests together on the actors."""
        asked = [self._request(request) for request in requests]
        with shown("image") as progress:
            for _ in self._remembered.generate_all(asked, progress):
                pass  # what came is on disk
        return [
            Kept(request.points, request.first, request.count, (self._remembered.file(one),))
            for request, one in zip(requests, asked, strict=True)
        ]

    def score(self, kept: Kept) -> Array:
        """Return the distance and its replicates (1 + REPLICATES,)."""
        value, influence = frechet_influence(kept.features(), self._reference)
        self._tell(Measurement(kept, value, infinitesimal_jackknife(influence)))
        return np.concatenate([[value], value + resampled_means(influence)])


def resampled_means(influence: Array) -> Array:
    """Return the means of bootstrap resamples (REPLICATES,) of n numbers: the same resamples for equal n."""
    n = len(influence)
    return np.array([influence[indices].mean() for indices in _resamples(n)])


@functools.lru_cache(maxsize=8)
def _resamples(n: int) -> np.ndarray:
    rng = np.random.default_rng(derived_seed(n, "resamples"))
    return rng.integers(0, n, (REPLICATES, n), dtype=np.int32)
