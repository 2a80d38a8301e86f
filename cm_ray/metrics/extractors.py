"""What turns images into features, and how one is opened by name."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from cm_ray.errors import UserError, closest
from cm_ray.metrics.statistics import FeatureStatistics


class Extractor(Protocol):
    """A fixed network whose features scores are made of.

    The features of an image do not depend on the batch that it comes in.
    """

    @property
    def name(self) -> str:
        """Short name; part of every score's name."""
        ...

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        ...

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, in hex."""
        ...

    @property
    def preprocess(self) -> str:
        """What happens to an image before the network, in a few words."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, dim), float, of uint8 images (b, c, h, w), on any device.

        Raises UserError on images that the extractor is not made for.
        """
        ...


EXTRACTORS = ("digits",)
"""Names that `open_extractor` knows."""


def open_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """Return the extractor called `name`, on `device`; `digits` is trained on first use (seconds).

    Raises UserError on an unknown name and on "none".
    """
    if name == "digits":
        from cm_ray.metrics.digits import DigitsExtractor

        return DigitsExtractor.open(device)
    if name == "none":
        raise UserError(
            "Scores need an extractor, and --evaluation.extractor is none: "
            f"choose one of {', '.join(EXTRACTORS)}."
        )
    raise UserError(f"There is no extractor {name!r}: {closest(name, list(EXTRACTORS))}")


def statistics_of(extractor: Extractor, images: Tensor, batch_size: int = 1024) -> FeatureStatistics:
    """Return the feature statistics of uint8 images (n, c, h, w), taken `batch_size` at a time."""
    parts = (FeatureStatistics.of(extractor.features(part)) for part in images.split(batch_size))
    return sum(parts, start=FeatureStatistics.zero(extractor.dim))
