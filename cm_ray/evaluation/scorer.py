"""Samples of a model and the statistics of their features, made in this process or on a cluster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.drawing.requests import Request, sample_all, sample_units
from cm_ray.evaluation.reference import ScoredAgainst, keep_noise, kept_noise, reference_statistics
from cm_ray.metrics.extractors.extractor import Extractor, extracted, statistics_of_batches
from cm_ray.metrics.frechet import GROUPS, FrechetReference, frechet_of_groups
from cm_ray.metrics.score import Score, score_from_estimate, score_key
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import to_uint8
from cm_ray.sampling.text import text_of

MOST_SAMPLES = 50_000
"""Samples of a score, unless another number is asked for: as many as FID has, and not more than images."""
_NOISE_UNIT = 1024


def sample_count(asked: int, images: int) -> int:
    """Return the number of samples of a score: the one asked for, else that of the images, at most 50,000.

    images: 0 where their number is not known.
    """
    return asked or min(images or MOST_SAMPLES, MOST_SAMPLES)


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Statistics of samples, whose size does not depend on the number of samples."""

    groups: list[FeatureStatistics]
    """Statistics of the features of up to `GROUPS` groups of samples; empty without an extractor."""
    classes: Tensor | None
    """Number of samples that the extractor takes for each class, int64 (k,); None if it predicts none."""
    seconds_per_1000: float
    """Seconds in which one device makes 1,000 samples: the median, without the extraction of features."""


class Scorer(Protocol):
    """A scorer samples and extracts features, in this process or on the actors of a cluster."""

    @property
    def extractor(self) -> Extractor | None:
        """The extractor, of which callers read only what it is; None: nothing is scored."""

    def pictures(self, folder: Path, request: Request) -> Tensor:
        """Return the samples of the model in a folder, uint8 (n, c, h, w)."""

    def sampled(self, folder: Path, request: Request) -> Sampled:
        """Sample from the model in a folder; return the statistics of the samples, in groups."""

    def reference(self, data: ScoredAgainst) -> FeatureStatistics:
        """Return the statistics of all images; they are computed once, and then cached."""

    def noise(self, shape: tuple[int, int, int], n: int) -> FeatureStatistics:
        """Return the statistics of n images (c, h, w) of clipped Gaussian noise, cached like the images'."""


@dataclass(frozen=True, eq=False)
class LocalScorer:
    """A scorer in this process."""

    device: torch.device
    extractor: Extractor | None
    clock: Callable[[], float] = time.perf_counter
    """The clock of the seconds; without a GPU, `time.process_time` is not disturbed by other programs."""

    def pictures(self, folder: Path, request: Request) -> Tensor:
        """Return the samples of the model in a folder, uint8 (n, c, h, w)."""
        return sample_all(load_model(folder, self.device), request)[0]

    def sampled(self, folder: Path, request: Request) -> Sampled:
        """Sample from the model in a folder; return the statistics of the samples, in groups."""
        model, extractor = load_model(folder, self.device), self._extractor
        groups, classes, seconds = [], [], []
        for part in request.groups(GROUPS):
            group, started = FeatureStatistics.zero(extractor.dim), self.clock()
            for images in sample_units(model, part):
                seconds.append((self.clock() - started) / len(images))
                group += FeatureStatistics.of(extracted(extractor, images))
                classes.append(class_counts(extractor, images))
                started = self.clock()
            groups.append(group)
        return Sampled(groups, summed(classes), 1000 * statistics.median(seconds))

    def reference(self, data: ScoredAgainst) -> FeatureStatistics:
        """Return the statistics of all images; they are computed once, and then cached."""
        return reference_statistics(data, self._extractor)

    def noise(self, shape: tuple[int, int, int], n: int) -> FeatureStatistics:
        """Return the statistics of n images (c, h, w) of clipped Gaussian noise, cached like the images'."""
        found = kept_noise(shape, n, self._extractor)
        if found is None:
            found = statistics_of_batches(self._extractor, noise_batches(shape, 0, n))
            keep_noise(shape, self._extractor, found)
        return found

    @property
    def _extractor(self) -> Extractor:
        return needed_extractor(self.extractor)


def needed_extractor(extractor: Extractor | None) -> Extractor:
    """Return the extractor of a scorer. Raises ValueError when it has none."""
    if extractor is None:
        raise ValueError("statistics of features need an extractor")
    return extractor


def noise_batches(shape: tuple[int, int, int], first: int, count: int) -> Iterator[Tensor]:
    """Yield `count` images (c, h, w) of clipped Gaussian noise, from index `first` on, uint8 in batches."""
    for indices in torch.arange(first, first + count).split(_NOISE_UNIT):
        yield to_uint8(normal(0, 0, indices, Purpose.SAMPLE, shape).clamp(-1, 1))


def class_counts(extractor: Any, images: Tensor) -> Tensor | None:
    """Return the number of images that an extractor takes for each class, int64 (k,).

    None if the extractor does not predict classes. One without names of its classes may return fewer numbers
    than it has classes; see `summed`.
    """
    if not hasattr(extractor, "predict"):
        return None
    names: tuple[str, ...] = getattr(extractor, "class_names", ())
    return torch.bincount(extractor.predict(images).cpu(), minlength=len(names))


def summed(counts: Sequence[Tensor | None]) -> Tensor | None:
    """Return the sum of counts of classes (k,), of which some may lack the last classes; None without any."""
    given = [each for each in counts if each is not None]
    if not given:
        return None
    total = given[0].new_zeros(max(len(each) for each in given))
    for each in given:
        total[: len(each)] += each
    return total


def request_key(extractor: Extractor, request: Request, fingerprint: str) -> dict[str, Any]:
    """Return the key of the scores of a request's samples. fingerprint: that of the reference images."""
    return score_key(
        extractor,
        n=request.count,
        seed=request.seed,
        reference=fingerprint,
        labels=request.labels_text,
        sampler=text_of(request.sampler),
        nfe=request.sampler.nfe,
        precision=request.precision,
    )


def frechet_score(
    groups: Sequence[FeatureStatistics], reference: FeatureStatistics, key: dict[str, Any]
) -> Score:
    """Return the Fréchet distance of groups of samples, with its standard error and its key."""
    return score_from_estimate("FD", frechet_of_groups(groups, FrechetReference.of(reference)), key)
