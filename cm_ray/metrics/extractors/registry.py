"""What turns images into features, and how one is opened by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cm_ray.errors import UserError, closest
from cm_ray.extras import needs
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


@runtime_checkable
class Classifier(Protocol):
    """An extractor that also classifies: what the Inception score is made of."""

    def logits_of(self, features: Tensor) -> Tensor:
        """Return the logits (b, classes) that the network goes on to from `features` (b, dim).

        The features may come from another device, as those do that were collected on the CPU.
        """
        ...


def open_extractor(
    name: str,
    device: torch.device | str = "cpu",
    *,
    weights: Path | str = "",
    resizing: str = "legacy_tensorflow",
) -> Extractor:
    """Return the extractor called `name`, one of `EXTRACTORS` or ``package.module:factory``, on `device`.

    weights: file, or folder with the file, of the published weights of `inception-2015`, `clean-fid` and
    the CIFAR networks; empty looks where `PublishedWeights.find` says.  resizing: for the Inceptions, see
    `resizing`. `digits` is trained on first use (seconds). Raises UserError on an unknown
    name, on "none", and when weights are missing or are others.
    """
    if ":" in name:
        from cm_ray.metrics.extractors.custom import open_own

        return open_own(name, device)
    if name == "none":
        raise UserError(
            "Scores need an extractor, and --evaluation.extractor is none: "
            f"choose one of {', '.join(EXTRACTORS)}."
        )
    if name not in _OPENERS:
        raise UserError(f"There is no extractor {name!r}: {closest(name, list(EXTRACTORS))}")
    return _OPENERS[name](device, weights, resizing)


def _open_digits(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
    from cm_ray.metrics.extractors.digits_classifier import DigitsExtractor

    return DigitsExtractor.open(device)


def _open_inception(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
    from cm_ray.metrics.extractors.inception import InceptionExtractor

    return InceptionExtractor.open(device, weights=weights, resizing=resizing)


def _open_clean_fid(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
    needs("cleanfid", "scipy", extra="scores")
    from cm_ray.metrics.extractors.clean_fid import CleanFIDExtractor

    return CleanFIDExtractor.open(device, weights=weights, resizing=resizing)


def _open_random_inception(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
    from cm_ray.metrics.extractors.inception import InceptionExtractor

    return InceptionExtractor.random(device, resizing=resizing)


def _open_cifar_resnet(depth: int) -> _Opener:
    def opener(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
        from cm_ray.metrics.extractors.cifar_resnet import CifarResNetExtractor

        return CifarResNetExtractor.open(depth, device, weights=weights)

    return opener


_Opener = Callable[[torch.device | str, Path | str, str], Extractor]
_OPENERS: dict[str, _Opener] = {
    "digits": _open_digits,
    "inception-2015": _open_inception,
    "clean-fid": _open_clean_fid,
    "cifar-resnet20": _open_cifar_resnet(20),
    "cifar-resnet56": _open_cifar_resnet(56),
    "random-inception": _open_random_inception,
}

EXTRACTORS = tuple(_OPENERS)
"""Names that `open_extractor` knows; random-inception is for tests."""


def statistics_of(extractor: Extractor, images: Tensor, batch_size: int = 1024) -> FeatureStatistics:
    """Return the feature statistics of uint8 images (n, c, h, w), taken `batch_size` at a time."""
    parts = (FeatureStatistics.of(extractor.features(part)) for part in images.split(batch_size))
    return sum(parts, start=FeatureStatistics.zero(extractor.dim))


def features_of(extractor: Extractor, images: Tensor, batch_size: int = 1024) -> Tensor:
    """Return the features (n, dim), on the CPU, of uint8 images (n, c, h, w), `batch_size` at a time.

    For scores that need the vectors themselves; statistics take less memory.
    """
    return torch.cat([extractor.features(part).cpu() for part in images.split(batch_size)])
