"""The scorer whose samples and features are made by the actors of a pool."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cm_ray.cluster.pool.cache import ResultCache
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import statistics_on
from cm_ray.cluster.pool.result import Outputs
from cm_ray.drawing.requests import Request
from cm_ray.evaluation.reference import ScoredAgainst, Shards, keep_noise, kept_noise
from cm_ray.evaluation.scorer import Sampled, needed_extractor, summed
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.frechet import GROUPS
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.runs.console import say, shown


@dataclass(frozen=True, eq=False)
class PoolScorer:
    """A `cm_ray.evaluation.scorer.Scorer` on a pool, which keeps finished groups of samples on disk.

    The driver receives statistics and pictures alone.
    """

    pool: SamplerPool
    extractor: Extractor | None
    """The extractor of the pool's actors; only what it is, is read here."""
    work: Path
    """Folder of the finished groups, until the job ends."""

    def pictures(self, folder: Path, request: Request) -> Tensor:
        """Return the samples of the model in a folder, uint8 (n, c, h, w)."""
        images = self.pool.generate(self.pool.put(folder), request, frozenset(["images"])).images
        assert images is not None
        return images

    def sampled(self, folder: Path, request: Request) -> Sampled:
        """Sample from the model in a folder; return the statistics of the samples, in groups."""
        outputs: Outputs = frozenset(["statistics"])
        if hasattr(self._extractor, "predict"):
            outputs |= {"classes"}
        cache = ResultCache(self.pool, self.pool.put(folder), self._extractor, outputs, self.work)
        with shown("image") as progress:
            found = dict(cache.generate_all(request.groups(GROUPS), progress))
        results = [found[index] for index in sorted(found)]
        return Sampled(
            [result.statistics for result in results if result.statistics is not None],
            summed([result.classes for result in results]),
            statistics.median(result.seconds_per_1000 for result in results),
        )

    def reference(self, data: ScoredAgainst) -> FeatureStatistics:
        """Return the statistics of all images of a folder of shards, computed once and then cached."""
        if not isinstance(data, Shards):
            raise TypeError(f"a pool reads folders of shards, not {type(data).__name__}")
        return statistics_on(self.pool, data.folder, data.manifest, self._extractor)

    def noise(self, shape: tuple[int, int, int], n: int) -> FeatureStatistics:
        """Return the statistics of n images (c, h, w) of clipped Gaussian noise, cached like the images'."""
        found = kept_noise(shape, n, self._extractor)
        if found is None:
            say(f"statistics of {n:,} images of noise, computed once for this extractor:")
            with shown("image") as progress:
                found = self.pool.noise(shape, n, progress)
            keep_noise(shape, self._extractor, found)
        return found

    @property
    def _extractor(self) -> Extractor:
        return needed_extractor(self.extractor)
