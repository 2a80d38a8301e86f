"""Scores of a model or of images against a data set, computed in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from cm_ray.evaluation.reference import ScoredAgainst, reference_statistics
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.score import Score, score_from_estimate, score_key
from cm_ray.metrics.score_kinds import NEEDS, Needs, SampleSet, check_kinds, estimate_all
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.arithmetic import Precision
from cm_ray.sampling.samplers import Sampler
from cm_ray.sampling.text import text_of

GROUPS = 20
"""Number of groups of samples, from whose statistics the error of a Fréchet distance is computed."""
Blocks = Callable[[], Iterable[Tensor]]
"""A function that yields uint8 images (b, c, h, w)."""


def score_images(
    blocks: Blocks,
    n: int,
    reference: ScoredAgainst,
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
    check_kinds(kinds, extractor, n, reference.count)
    needs: set[Needs] = {NEEDS[kind] for kind in kinds}
    if needs == {"statistics"}:
        compared = SampleSet(groups=[reference_statistics(reference, extractor)])
    else:
        compared = _sample_set(reference.blocks(), reference.count, extractor, needs)
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


def _sample_set(
    images: Iterable[Tensor], n: int, extractor: Extractor, needs: Collection[Needs]
) -> SampleSet:
    """Return what is needed of images: statistics of groups, features, or the images."""
    groups, features, kept = [], [], []
    for block in _cut(images, max(1, n // GROUPS)):
        extracted = extractor.features(block)
        groups.append(FeatureStatistics.of(extracted))
        if "features" in needs:
            features.append(extracted)
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
