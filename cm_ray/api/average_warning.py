"""The Python warning of a model whose average hardly learned."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Protocol

from cm_ray.errors import plain, spoken
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.networks.model import ModelSpec


class Named(Protocol):
    """A model with its name for messages."""

    name: str

    @property
    def spec(self) -> ModelSpec:
        """Its specification."""


def warn_of_average(model: Named) -> None:
    """Issue a Python warning, at the user's line that led here, if a model's average hardly learned."""
    if warning := initial_weights_warning(model.spec, model.name):
        package, frame, level = str(Path(__file__).parents[1]), sys._getframe(), 1
        while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
            frame, level = frame.f_back, level + 1
        warnings.warn(plain(spoken(warning)), UserWarning, stacklevel=level)
