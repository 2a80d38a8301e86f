"""What an engine is built of: the student, its frozen copies, the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.core.schedules import LearningRate
from cm_ray.networks.model import Model, ModelSpec, load_weights
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import RAdam


def build_student(spec: ModelSpec, seed: int, initial: Mapping[str, Tensor] | None = None) -> Model:
    """Build a model with the initial weights given, or with some that are a function of the seed.

    Leaves the global RNG alone. Raises UserError when the weights are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        student = Model(spec)
    if initial is not None:
        load_weights(student.network, dict(initial), "--init-from")
    return student


def build_optimizer(config: Recipe, student: Model) -> torch.optim.Optimizer:
    """Return the optimizer of the student's weights; weight decay is decoupled.

    It passes over all tensors at once: Adam on a GPU in one kernel, else operation by operation.
    """
    settings = config.optimizer
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (0.9, settings.beta2),
        "weight_decay": settings.weight_decay,
    }
    if isinstance(settings, RAdam):
        return torch.optim.RAdam(student.parameters(), decoupled_weight_decay=True, foreach=True, **options)
    cuda = next(student.parameters()).device.type == "cuda"
    return torch.optim.AdamW(student.parameters(), fused=cuda, foreach=not cuda, **options)


def learning_rate(recipe: Recipe) -> LearningRate:
    """Return the learning rate as a function of the step."""
    optimizer, halving = recipe.optimizer, recipe.method.halving
    starts = tuple(halving.starts(recipe.steps)) if halving else (0, recipe.steps)
    return LearningRate(optimizer.learning_rate, optimizer.warmup_steps, optimizer.decay == "linear", starts)


def contiguous_copy(tensor: Tensor) -> Tensor:
    """Copy to the CPU, in the plain layout that files have (weights live with their channels last)."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def frozen_copy(student: Model) -> Model:
    """Return a copy on the same device, in eval mode, without gradients."""
    copy = Model(student.spec).to(next(student.parameters()).device).requires_grad_(False)
    copy.load_state_dict(student.state_dict())
    return copy.eval()
