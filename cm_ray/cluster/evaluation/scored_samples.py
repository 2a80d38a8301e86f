"""The samples, or given images, that an evaluation computes scores of."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import Tensor

from cm_ray.cluster.pool.result import SampleResult, joined
from cm_ray.metrics.score_kinds import SampleSet


@dataclass(frozen=True)  # without slots, which a cached property does not allow
class ScoredSamples:
    """The samples of one sampler, or the images that were given instead."""

    sampler: str
    nfe: int
    seed: int
    precision: str
    results: list[SampleResult]
    order: Tensor | None = None
    """Rows of the images in the order of their source; None where they lie in it."""

    @functools.cached_property
    def as_set(self) -> SampleSet:
        """The set that scores are computed from."""
        groups = [result.statistics for result in self.results if result.statistics is not None]
        features, images = joined(self.results, "features"), joined(self.results, "images")
        if self.order is not None:  # some scores draw subsets by the places of the images
            features, images = (None if one is None else one[self.order] for one in (features, images))
        return SampleSet(groups=groups, features=features, images=images)
