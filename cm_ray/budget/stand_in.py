"""Teachers with random weights, in place of those that a training will have."""

from __future__ import annotations

import dataclasses

from cm_ray.networks.model import Model, ModelSpec
from cm_ray.recipes.recipe import Recipe

_SHARE = 0.1
"""A label dropout, by which a network has a null class; its size does not matter here."""


def stand_in_teacher(recipe: Recipe, spec: ModelSpec) -> Model | None:
    """Return a teacher like the student, spec, which can be guided; None if the method has none."""
    if not recipe.method.needs_teacher:
        return None
    diffusion = dataclasses.replace(spec.diffusion, boundary="none", guidance=())
    network = spec.network
    if recipe.method.guidance.asked and not network.label_dropout:
        network = dataclasses.replace(network, label_dropout=_SHARE)  # type: ignore[type-var]
    return Model(dataclasses.replace(spec, diffusion=diffusion, network=network))
