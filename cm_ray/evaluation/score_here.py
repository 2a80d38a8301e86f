"""Scores of a model or of images against a data set, computed in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cm_ray.data.interface.permutation import SEED, Permutation
from cm_ray.evaluation.reference import ScoredAgainst, reference_statistics
from cm_ray.evaluation.scorer import MOST_SAMPLES
from cm_ray.evaluation.statistics_file import StatisticsFile
from cm_ray.metrics.extractors.extractor import Extractor, extracted
from cm_ray.metrics.frechet import GROUPS
from cm_ray.metrics.score import Score, score_from_estimate, score_key
from cm_ray.metrics.score_kinds import NEEDS, Needs, SampleSet, check_kinds, estimate_all
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.arithmetic import Precision
from cm_ray.sampling.samplers import Sampler
from cm_ray.sampling.text import text_of

Blocks = Callable[[], Iterable[Tensor]]
"""A function that yields uint8 images (b, c, h, w)."""


def score_images(
    blocks: Blocks,
    n: int,
    reference: ScoredAgainst | StatisticsFile,
    extractor: Extractor,
    kinds: Sequence[str],
    *,
    seed: int,
    sampler: Sampler | None = None,
    labels: str = "none",
    precision: Precision = "float32",
) -> dict[str, Score]:
    """Return the scores of n images by kind, each with its standard error and its key.

    blocks: yields the images. reference: the images to compare with. seed, sampler, labels: those of the
    samples, for the key; no sampler and the labels none for images. precision: arithmetic of the sampled
    network. Raises UserError on an unknown kind, and when there are too few images for a kind.
    """
    check_kinds(kinds, extractor, n, reference.count or None)
    needs: set[Needs] = {NEEDS[kind] for kind in kinds}
    compared = _reference_set(reference, extractor, kinds)
    if sampler is None and "statistics" in needs:
        needs.add("features")  # images may be sorted by class: errors from statistics of groups are wrong
    samples = _sample_set(blocks(), n, extractor, needs)
    text, nfe = (text_of(sampler), sampler.nfe) if sampler else ("images", 0)
    key = score_key(
        extractor,
        n=n,
        seed=seed,
        reference=reference.fingerprint,
        labels=labels,
        sampler=text,
        nfe=nfe,
        precision=precision if sampler else "",
    )
    estimates = estimate_all(kinds, samples, compared, extractor, seed=seed)
    return {kind: score_from_estimate(kind, estimate, key) for kind, estimate in estimates.items()}


def _reference_set(
    reference: ScoredAgainst | StatisticsFile, extractor: Extractor, kinds: Sequence[str]
) -> SampleSet:
    """Return the reference of scores: statistics of all images, features of 50,000 random ones at most."""
    if isinstance(reference, StatisticsFile):
        reference.check(extractor, kinds)
        return reference.as_set()
    needs = {NEEDS[kind] for kind in kinds}
    few = reference.count <= MOST_SAMPLES
    if few and needs != {"statistics"}:
        return _sample_set(reference.blocks(), reference.count, extractor, needs)
    groups = [reference_statistics(reference, extractor)]
    if needs == {"statistics"}:
        return SampleSet(groups=groups)
    part = _sample_set(_random_part(reference), MOST_SAMPLES, extractor, needs)
    return replace(part, groups=groups, drawn_from=reference.count)


def _random_part(reference: ScoredAgainst) -> Iterator[Tensor]:
    """Yield 50,000 random images in blocks; they are the same for the same number of images."""
    chosen = torch.zeros(reference.count, dtype=torch.bool)
    chosen[torch.from_numpy(Permutation(SEED, (reference.count,)).places()[:MOST_SAMPLES])] = True
    done = 0
    for block in reference.blocks():
        yield block[chosen[done : done + len(block)]]
        done += len(block)


def _sample_set(
    images: Iterable[Tensor], n: int, extractor: Extractor, needs: Collection[Needs]
) -> SampleSet:
    """Return what is needed of images: statistics of groups, features, or the images."""
    groups, features, kept = [], [], []
    for block in _cut(images, max(1, n // GROUPS)):
        found = extracted(extractor, block)
        groups.append(FeatureStatistics.of(found))
        if "features" in needs:
            features.append(found)
        if "images" in needs:
            kept.append(block)
    return SampleSet(
        groups=groups,
        features=torch.cat(features) if features else None,
        images=torch.cat(kept) if kept else None,
    )


def _cut(images: Iterable[Tensor], most: int) -> Iterator[Tensor]:
    for block in images:
        yield from block.split(most)
