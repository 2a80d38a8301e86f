"""Open a feature extractor by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from cm_ray.errors import UserError, closest, setting
from cm_ray.extras import needs
from cm_ray.metrics.extractors.custom import open_custom
from cm_ray.metrics.extractors.extractor import Extractor


def open_extractor(
    name: str,
    device: torch.device | str = "cpu",
    *,
    weights: Path | str = "",
    resizing: str = "legacy_tensorflow",
) -> Extractor:
    """Return the extractor called `name`, one of `EXTRACTORS` or ``package.module:factory``, on `device`.

    weights: the file of published weights, or the folder that holds it, for `inception-2015`, `clean-fid`,
    DINOv2 and the CIFAR networks; empty searches the places that `PublishedWeights.find` lists.  resizing: a
    name in `RESIZINGS`, for the Inception networks. The `digits` extractor is trained on first use, which
    takes seconds. Raises UserError when the name is unknown or "none", and when the weights are missing or
    have another SHA-256.
    """
    if ":" in name:
        return open_custom(name, device, reserved=EXTRACTORS)
    if name == "none":
        raise UserError(
            f"Scores need an extractor, but {setting('extractor', 'evaluation.extractor')} is none; "
            f"choose one of {', '.join(EXTRACTORS)}."
        )
    if name not in _OPENERS:
        raise UserError(f"There is no extractor {name!r}: {closest(name, list(EXTRACTORS))}")
    return _OPENERS[name](device, weights, resizing)


def _open_digits(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
    from cm_ray.metrics.extractors.digits_classifier import DigitsExtractor

    return DigitsExtractor.open(device)


def _open_scattering(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
    from cm_ray.metrics.extractors.scattering import ScatteringExtractor

    return ScatteringExtractor.open(device)


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


def _open_dinov2(shape: str) -> _Opener:
    def opener(device: torch.device | str, weights: Path | str, resizing: str) -> Extractor:
        from cm_ray.metrics.extractors.dinov2 import DINOv2Extractor

        return DINOv2Extractor.open(shape, device, weights=weights)

    return opener


_Opener = Callable[[torch.device | str, Path | str, str], Extractor]
_OPENERS: dict[str, _Opener] = {
    "digits": _open_digits,
    "scattering": _open_scattering,
    "inception-2015": _open_inception,
    "clean-fid": _open_clean_fid,
    "cifar-resnet20": _open_cifar_resnet(20),
    "cifar-resnet56": _open_cifar_resnet(56),
    "dinov2-vitl14": _open_dinov2("vitl14"),
    "dinov2-vitb14": _open_dinov2("vitb14"),
    "dinov2-vits14": _open_dinov2("vits14"),
    "random-inception": _open_random_inception,
}

EXTRACTORS = tuple(_OPENERS)
"""Names of the built-in extractors; random-inception is for tests only."""
