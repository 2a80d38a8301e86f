"""Open a user's own feature extractor by its import path."""

from __future__ import annotations

from collections.abc import Collection

import torch

from cm_ray.errors import UserError
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.own_code import found

_ATTRIBUTES = {"name": str, "dim": int, "weights_sha256": str, "preprocess": str}


def open_custom(path: str, device: torch.device | str = "cpu", *, reserved: Collection[str]) -> Extractor:
    """Call the factory ``package.module:factory`` with the device and return the `Extractor` that it makes.

    reserved: names of built-in extractors, which a custom one must not have. Raises UserError when the
    factory cannot be imported or was not named (see `cm_ray.own_code`), when an attribute of the protocol is
    missing, or when the name is reserved.
    """
    try:
        factory = found(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The extractor {path} cannot be imported ({error}); name it package.module:factory and make "
            "the module importable from where this runs."
        ) from error
    if not callable(factory):
        raise UserError(f"{path} is not callable; give a function that takes a device.")
    extractor = factory(device)
    missing = [
        name for name, kind in _ATTRIBUTES.items() if not isinstance(getattr(extractor, name, None), kind)
    ]
    if not callable(getattr(extractor, "features", None)):
        missing.append("features")
    if missing:
        raise UserError(
            f"The extractor of {path} lacks {', '.join(missing)}; implement "
            "cm_ray.metrics.extractors.extractor.Extractor."
        )
    if extractor.name in reserved:
        raise UserError(
            f"The extractor of {path} has the name of a built-in one, {extractor.name}; give it another name."
        )
    return extractor
