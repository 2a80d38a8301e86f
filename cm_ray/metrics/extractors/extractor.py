"""The protocols of feature extractors, and features and statistics of many images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cm_ray.core.out_of_memory import in_memory
from cm_ray.errors import setting
from cm_ray.metrics.statistics import FeatureStatistics

_BATCH_SIZE = setting("batch_size", "evaluation.batch_size")


class Extractor(Protocol):
    """A fixed network that turns images into the feature vectors that scores are computed from.

    The features of an image must not depend on the other images in its batch.
    """

    @property
    def name(self) -> str:
        """Short name; it is part of the name of every score."""
        ...

    @property
    def dim(self) -> int:
        """Number of features in a vector."""
        ...

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, in hex."""
        ...

    @property
    def preprocess(self) -> str:
        """Short description of the resizing and scaling that images get before the network."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, dim), float, of uint8 images (b, c, h, w), on any device.

        Raises UserError when the extractor does not support images of this shape or type.
        """
        ...


@runtime_checkable
class Classifier(Protocol):
    """An extractor that also predicts classes. The Inception score needs one."""

    def logits_of(self, features: Tensor) -> Tensor:
        """Return the logits (b, classes) that the network computes from `features` (b, dim).

        The features may be on another device than the network.
        """
        ...


def extracted(extractor: Extractor, images: Tensor) -> Tensor:
    """Return the features (b, dim) of images. Raises UserError when they do not fit into memory."""
    with in_memory(f"The features of {len(images):,} images at a time", f"lower {_BATCH_SIZE}"):
        return extractor.features(images)


def statistics_of(extractor: Extractor, images: Tensor, batch_size: int = 1024) -> FeatureStatistics:
    """Return the feature statistics of uint8 images (n, c, h, w), computed in batches of `batch_size`."""
    return statistics_of_batches(extractor, images.split(batch_size))


def statistics_of_batches(extractor: Extractor, batches: Iterable[Tensor]) -> FeatureStatistics:
    """Return the feature statistics of batches of uint8 images (b, c, h, w), added up in their order."""
    each = (FeatureStatistics.of(extracted(extractor, batch)) for batch in batches)
    return sum(each, start=FeatureStatistics.zero(extractor.dim))


def features_of(extractor: Extractor, images: Tensor, batch_size: int = 1024) -> Tensor:
    """Return the features (n, dim), on the CPU, of uint8 images (n, c, h, w), in batches of `batch_size`.

    Use this for scores that need the vectors themselves; `statistics_of` takes less memory.
    """
    return torch.cat([extracted(extractor, batch).cpu() for batch in images.split(batch_size)])
