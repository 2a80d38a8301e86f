"""Speed of a recipe on this machine, measured in a few of its steps."""

from __future__ import annotations

import dataclasses
import time

import torch

from cm_ray.budget.stand_in import stand_in_teacher
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.model import ModelSpec
from cm_ray.phases import phase
from cm_ray.recipes.automatic import DataFacts
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.choices import word_of
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine

_STEPS, _FEWEST, _PATIENCE_S = 20, 5, 8.0
"""Steps that are taken, and those that are taken where they need more than so many seconds."""


def spec_of(recipe: Recipe, data: DataFacts) -> ModelSpec:
    """Return the specification of a recipe's model for some images."""
    return ModelSpec(
        network=recipe.network,
        diffusion=recipe.diffusion,
        shape=data.shape,
        class_names=placeholders(data.classes if recipe.network.conditional else 0),
    )


def measured_speed(recipe: Recipe, data: DataFacts, device: str = "cpu") -> float:
    """Return the least seconds of a step of one of the recipe's workers, without the first step.

    The least is what other programs of a busy machine change least. The images are black, and the weights,
    also of a teacher, are random, which changes no time.
    """
    spec = spec_of(recipe, data)
    channels = getattr(spec.network, "channels", "own")
    phase(f"measuring steps of method {word_of(recipe.method)} with {channels} channels")
    rows = recipe.batch_size // recipe.cluster.workers.most
    one = dataclasses.replace(recipe.cluster, num_workers=1)
    alone = dataclasses.replace(recipe, cluster=one, batch_size=rows)
    engine = Engine(alone, spec, device=device, teacher=stand_in_teacher(recipe, spec))
    images = torch.zeros(rows, *spec.shape, dtype=torch.uint8)
    batch = Batch(images, torch.zeros(rows, dtype=torch.int64))
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < _STEPS and (len(seconds) < _FEWEST or time.perf_counter() - began < _PATIENCE_S):
        before = time.perf_counter()
        float(engine.one_step(batch).loss)  # waits for the device
        seconds.append(time.perf_counter() - before)
    return min(seconds[1:])
