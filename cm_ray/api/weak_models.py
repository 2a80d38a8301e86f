"""The weaker model that guides one in Python: named, or loaded already."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeAlias

from cm_ray.drawing.autoguidance import guide
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model
from cm_ray.tracking.locate import locate_model


class Loaded(Protocol):
    """A loaded model, such as `cm_ray.load` returns."""

    torch_model: Model


Weak: TypeAlias = str | Path | Loaded | None
"""A weaker model, by its name or loaded; None: the model without the class."""


def guided_by(model: Model, weak: Weak) -> str:
    """Put the weaker model beside the one that it guides; return its digest, "" for None.

    Raises UserError when there is no such model, or when it cannot guide the model.
    """
    if weak is None:
        return ""
    other = load_model(locate_model(str(weak))) if isinstance(weak, str | Path) else weak.torch_model
    return guide(model, other, str(weak))
