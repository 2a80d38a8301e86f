"""Warnings of averages that still are, in part, the weights that their training began with."""

from __future__ import annotations

import sys

from cm_ray.errors import setting, spoken
from cm_ray.networks.model import ModelSpec

MOST_SHARE = 0.05
"""Share of the initial weights in an average up to which there is no warning."""


def initial_weights_warning(spec: ModelSpec, name: str) -> str | None:
    """Return a warning when a model is, to more than 5 %, what its training began with; None otherwise.

    name: of the model, as the user gave it.
    """
    if spec.initial_share <= MOST_SHARE:
        return None
    return spoken(
        f"{spec.initial_share:.0%} of the averaged weights of {name} are those that its training began with, "
        f"and show nothing of what it learned; train with {setting('averages')} power, or for more steps."
    )


def warn_of_initial_weights(spec: ModelSpec, name: str) -> None:
    """Print the warning to the terminal (standard error), if there is one."""
    if warning := initial_weights_warning(spec, name):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
