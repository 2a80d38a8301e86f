"""The cost of a training, counted and not timed: machines are shared, and no two are alike."""

from __future__ import annotations

import dataclasses

import torch
from torch.utils.flop_counter import FlopCounterMode

from cm_ray.networks.model import Model, ModelSpec
from cm_ray.recipes.recipe import Recipe
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine


def training_flops(config: Recipe, spec: ModelSpec, teacher: Model | None = None) -> float:
    """Return the floating-point operations of a training: student, target, teacher, distance, both ways.

    Counted on one step of one image on the CPU, times images and steps; optimizer and averages, which do not
    grow with the batch, are left out. Raises UserError as `Engine`.
    """
    alone = dataclasses.replace(config, batch_size=1, accumulate=1, precision="float32")
    engine = Engine(alone, spec, teacher=teacher)
    channels, *size = spec.shape
    labels = torch.zeros(1, dtype=torch.int64)
    batch = Batch(torch.zeros(1, channels, *size, dtype=torch.uint8), labels)
    with FlopCounterMode(display=False) as counter:
        engine.one_step(batch)
    return float(counter.get_total_flops()) * config.batch_size * config.steps
