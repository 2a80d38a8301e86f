"""Statistics of samples of several models on a pool, with finished requests kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cm_ray.cluster.pool.cache import ResultCache
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.drawing.requests import Request
from cm_ray.evaluation.lengths import Measure
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.runs.console import shown


def measure_on(pool: SamplerPool, extractor: Extractor | None, work: Path) -> Measure:
    """Return the function that samples the requests of a length on the pool.

    extractor: that of the pool's actors. work: folder of the finished requests, until the job ends.
    """

    def measure(folder: Path, requests: Sequence[Request]) -> list[FeatureStatistics]:
        assert extractor is not None
        cache = ResultCache(pool, pool.put(folder), extractor, frozenset(["statistics"]), work)
        with shown("image") as progress:
            found = dict(cache.generate_all(requests, progress))
        results = [found[index].statistics for index in range(len(requests))]
        return [statistics for statistics in results if statistics is not None]

    return measure
