"""Every kind of score from one place: what it needs of the samples, and measuring it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True, eq=False)  # without slots: `frechet` is kept beside the fields
class SampleSet:
    """What is kept of generated samples, or of the real images: the parts that `NEEDS` says, no more."""

    groups: Sequence[FeatureStatistics] = ()
    """Statistics that add up to the whole's. Samples without features: of 20 or more, for FD's error."""
    features: Tensor | None = None
    """Feature vectors (n, d)."""
    images: Tensor | None = None
    """uint8 images (n, c, h, w)."""

    @functools.cached_property
    def frechet(self) -> FrechetReference:
        """The set as a reference of Fréchet distances, made once: of the groups, or else of the features."""
        if self.groups:
            return FrechetReference.of(sum(self.groups[1:], start=self.groups[0]))
        return FrechetReference.of(FeatureStatistics.of(_given(self.features, "the reference's features")))


def check_kinds(
    kinds: Iterable[str], extractor: Extractor, n: int | None = None, n_reference: int | None = None
) -> None:
    """Refuse, before there are samples, what could not be measured of `n` of them (None: not known yet).

    n_reference: images of the reference, likewise. Raises UserError on an unknown kind, on IS of an
    extractor that does not classify, and on too few samples, or images of the reference, for a kind.
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
    """Return each of `kinds`, see `KINDS`, of the samples against the reference, with its error.

    Both sets hold what `NEEDS` says, of the images as `extractor` sees them; of the reference, FDinf takes
    groups, too, and IS nothing.  seed: of random subsets and of the bootstraps. SWD is of the pixels, in
    [-1, 1]; all else is of the features. Raises UserError as `check_kinds` does and on too few samples,
    ValueError when a needed part is missing or does not fit.
    """
    check_kinds(kinds, extractor)
    measured: dict[str, Estimate] = {}
    for kind in kinds:
        if kind not in measured:  # recall comes with precision
            measured |= _KINDS[kind][1](samples, reference, extractor, seed)
    return {kind: measured[kind] for kind in kinds}


_Compute = Callable[[SampleSet, SampleSet, Extractor, int], dict[str, Estimate]]


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
    classifier = cast(Classifier, extractor)  # `check_kinds` has seen to it
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
"""Samples and images of the reference that each kind needs, as its own function checks."""
_WHAT = ("samples", "images in the reference")
_LEVELS = 127.5  # of a byte, in a unit of [-1, 1]

NEEDS: Mapping[str, Needs] = {kind: needs for kind, (needs, _) in _KINDS.items()}
"""What each kind needs of a `SampleSet`; statistics are its groups."""


def _given(part: Tensor | None, name: str) -> Tensor:
    if part is None:
        raise ValueError(f"a score needs {name}, which were not kept; see NEEDS")
    return part


def _features_of_both(samples: SampleSet, reference: SampleSet) -> tuple[Tensor, Tensor]:
    x = _given(samples.features, "the samples' features")
    return x, _given(reference.features, "the reference's features")
