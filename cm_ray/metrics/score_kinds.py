"""All kinds of scores in one table: the data that each kind needs, and the function that computes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.metrics import inception_score as inception
from cm_ray.metrics import kernel, manifold
from cm_ray.metrics.estimate import MIN_VECTORS, Estimate, check_enough
from cm_ray.metrics.extractors.extractor import Classifier, Extractor
from cm_ray.metrics.extrapolation import check_extrapolation, frechet_infinity
from cm_ray.metrics.frechet import FrechetReference, frechet_of_features, frechet_of_groups
from cm_ray.metrics.inception_score import inception_score
from cm_ray.metrics.kernel import kernel_distance
from cm_ray.metrics.manifold import precision_and_recall
from cm_ray.metrics.score import KINDS
from cm_ray.metrics.sliced import sliced_wasserstein
from cm_ray.metrics.statistics import FeatureStatistics

Needs = Literal["statistics", "features", "images"]
"""The data that a kind of score needs: statistics of groups, feature vectors, or images."""


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: `frechet` is cached beside the fields
class SampleSet:
    """Generated samples, or real images of a reference, as the data in `NEEDS` alone."""

    groups: Sequence[FeatureStatistics] = ()
    """Statistics of groups that together are the whole set.

    The error of FD needs 20 or more without features.
    """
    features: Tensor | None = None
    """Feature vectors (n, d)."""
    images: Tensor | None = None
    """uint8 images (n, c, h, w)."""
    known: FrechetReference | None = None
    """The mean and covariance of a reference whose images are not at hand."""
    drawn_from: int = 0
    """Number of images of which the features and images are a random part; 0: they are all."""

    @functools.cached_property
    def frechet(self) -> FrechetReference:
        """This set as the reference of Fréchet distances, from the groups or else the features."""
        if self.known is not None:
            return self.known
        if self.groups:
            return FrechetReference.of(sum(self.groups[1:], start=self.groups[0]))
        return FrechetReference.of(FeatureStatistics.of(_given(self.features, "the reference's features")))


def check_kinds(
    kinds: Iterable[str], extractor: Extractor, n: int | None = None, n_reference: int | None = None
) -> None:
    """Check, before anything is sampled, that `kinds` can be computed from `n` samples (None: not known yet).

    n_reference: number of images in the reference, or None. Raises UserError on an unknown kind, on IS with
    an extractor that is not a classifier, and on too few samples or images in the reference.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"There is no score {kind!r}; choose from {', '.join(KINDS)}.")
        if kind == "IS" and not isinstance(extractor, Classifier):
            raise UserError(
                f"IS needs an extractor that classifies, and {extractor.name} does not; choose another one."
            )
        for count, least, what in zip((n, n_reference), _MIN_COUNTS[kind], _WHAT, strict=True):
            if count is not None:
                check_enough(count, least, kind, what)
        if kind == "FDinf" and n is not None:
            check_extrapolation(n, extractor.dim)


def estimate_all(
    kinds: Sequence[str], samples: SampleSet, reference: SampleSet, extractor: Extractor, *, seed: int = 0
) -> dict[str, Estimate]:
    """Return an estimate of each of `kinds`, see `KINDS`, for the samples against the reference.

    Both sets must hold the data in `NEEDS`, computed by `extractor`. Of the reference, FDinf also takes
    groups, and IS needs nothing.  seed: of random subsets and bootstraps. SWD is computed from pixels, in
    [-1, 1]; all others from features. Raises UserError as `check_kinds` does and on too few samples,
    ValueError when needed data is missing or does not fit.
    """
    check_kinds(kinds, extractor)
    measured: dict[str, Estimate] = {}
    for kind in kinds:
        if kind not in measured:  # one function computes precision and recall
            measured |= _KINDS[kind][1](samples, reference, extractor, seed)
    return {kind: _naming_part(kind, measured[kind], reference) for kind in kinds}


def _naming_part(kind: str, estimate: Estimate, reference: SampleSet) -> Estimate:
    """Return the estimate with the number of images of the reference, if it compares with a part of them."""
    part = reference.features if NEEDS[kind] == "features" else reference.images
    if not reference.drawn_from or kind not in PAIRWISE or part is None:
        return estimate
    return replace(estimate, settings={**estimate.settings, "reference_images": len(part)})


_Compute = Callable[[SampleSet, SampleSet, Extractor, int], dict[str, Estimate]]
"""Function of samples, reference, extractor and seed that returns estimates by kind."""


def _fd(samples: SampleSet, reference: SampleSet, extractor: Extractor, seed: int) -> dict[str, Estimate]:
    if samples.features is not None:
        return {"FD": frechet_of_features(samples.features, reference.frechet)}
    if not samples.groups:
        raise ValueError("FD needs the samples' groups, or their features")
    return {"FD": frechet_of_groups(samples.groups, reference.frechet)}


def _fdinf(samples: SampleSet, reference: SampleSet, extractor: Extractor, seed: int) -> dict[str, Estimate]:
    features = _given(samples.features, "the samples' features")
    return {"FDinf": frechet_infinity(features, reference.frechet, seed=seed)}


def _kid(samples: SampleSet, reference: SampleSet, extractor: Extractor, seed: int) -> dict[str, Estimate]:
    return {"KID": kernel_distance(*_features_of_both(samples, reference), seed=seed)}


def _is(samples: SampleSet, reference: SampleSet, extractor: Extractor, seed: int) -> dict[str, Estimate]:
    classifier = cast(Classifier, extractor)  # `check_kinds` has checked it
    logits = classifier.logits_of(_given(samples.features, "the samples' features"))
    return {"IS": inception_score(logits, seed=seed)}


def _manifold(
    samples: SampleSet, reference: SampleSet, extractor: Extractor, seed: int
) -> dict[str, Estimate]:
    precision, recall = precision_and_recall(*_features_of_both(samples, reference), seed=seed)
    return {"precision": precision, "recall": recall}


def _swd(samples: SampleSet, reference: SampleSet, extractor: Extractor, seed: int) -> dict[str, Estimate]:
    x, y = _given(samples.images, "the samples' images"), _given(reference.images, "the reference's images")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"images {tuple(x.shape)} and {tuple(y.shape)} cannot be compared")
    levels = sliced_wasserstein(x.flatten(1), y.flatten(1), seed=seed)
    settings = {**levels.settings, "of": "pixels"}
    return {"SWD": Estimate(value=levels.value / _LEVELS, error=levels.error / _LEVELS, settings=settings)}


_KINDS: dict[str, tuple[Needs, _Compute]] = {
    "FD": ("statistics", _fd),
    "FDinf": ("features", _fdinf),
    "KID": ("features", _kid),
    "SWD": ("images", _swd),
    "IS": ("features", _is),
    "precision": ("features", _manifold),
    "recall": ("features", _manifold),
}

_MIN_COUNTS = {
    "FD": (MIN_VECTORS, MIN_VECTORS),
    "FDinf": (MIN_VECTORS, MIN_VECTORS),
    "KID": (kernel.min_vectors(), kernel.min_vectors()),
    "SWD": (MIN_VECTORS, MIN_VECTORS),
    "IS": (inception.min_samples(), 0),
    "precision": (manifold.min_vectors(), manifold.min_vectors()),
    "recall": (manifold.min_vectors(), manifold.min_vectors()),
}
"""Minimal number of samples, and of images in the reference, of each kind."""
_WHAT = ("samples", "images in the reference")
_LEVELS = 127.5  # levels of a byte per unit of [-1, 1]

PAIRWISE = ("KID", "SWD", "precision", "recall")
"""Kinds that compare samples with single images of the reference, not with its statistics."""
NEEDS: Mapping[str, Needs] = {kind: needs for kind, (needs, _) in _KINDS.items()}
"""The data of a `SampleSet` that each kind needs; statistics are its groups."""


def _given(data: Tensor | None, name: str) -> Tensor:
    if data is None:
        raise ValueError(f"a score needs {name}, which are missing; see NEEDS")
    return data


def _features_of_both(samples: SampleSet, reference: SampleSet) -> tuple[Tensor, Tensor]:
    x = _given(samples.features, "the samples' features")
    return x, _given(reference.features, "the reference's features")
