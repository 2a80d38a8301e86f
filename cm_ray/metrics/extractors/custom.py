"""A user's own extractor, by import path."""

from __future__ import annotations

import importlib

import torch

from cm_ray.errors import UserError
from cm_ray.metrics.extractors.registry import EXTRACTORS, Extractor

_ENTRIES = {"name": str, "dim": int, "weights_sha256": str, "preprocess": str}


def open_own(path: str, device: torch.device | str = "cpu") -> Extractor:
    """Return what the factory of ``package.module:factory`` makes of a device: an `Extractor`.

    Raises UserError when there is no such factory, when what it makes lacks an entry of the protocol, or
    when it goes by the name of a built-in extractor.
    """
    module_name, _, factory_name = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"The extractor {path} cannot be had ({error}); name it package.module:factory, "
            "importable from where this runs."
        ) from error
    if not callable(factory):
        raise UserError(f"{path} is no factory: it must be callable with a device.")
    extractor = factory(device)
    lacking = [
        entry for entry, kind in _ENTRIES.items() if not isinstance(getattr(extractor, entry, None), kind)
    ]
    if not callable(getattr(extractor, "features", None)):
        lacking.append("features")
    if lacking:
        raise UserError(
            f"What {path} makes is no extractor: it lacks {', '.join(lacking)}, "
            "see cm_ray.metrics.extractors.registry.Extractor."
        )
    if extractor.name in EXTRACTORS:
        raise UserError(
            f"The extractor of {path} calls itself {extractor.name}, which is another one's name."
        )
    return extractor
