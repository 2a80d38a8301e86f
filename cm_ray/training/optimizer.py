"""The optimizer of a training, its learning rate, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cm_ray.core.schedules import LearningRate
from cm_ray.errors import UserError
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import RAdam


def build_optimizer(recipe: Recipe, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of trained weights, with decoupled weight decay.

    All tensors are updated together: by Adam on a GPU in one fused kernel, else by foreach operations.
    """
    settings = recipe.optimizer
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (0.9, settings.beta2),
        "weight_decay": settings.weight_decay,
    }
    if isinstance(settings, RAdam):
        return torch.optim.RAdam(weights, decoupled_weight_decay=True, foreach=True, **options)
    cuda = weights[0].device.type == "cuda"
    return torch.optim.AdamW(weights, fused=cuda, foreach=not cuda, **options)


def learning_rate(recipe: Recipe) -> LearningRate:
    """Return the learning rate as a function of the step."""
    optimizer, halving = recipe.optimizer, recipe.method.halving
    starts = tuple(halving.starts(recipe.steps)) if halving else (0, recipe.steps)
    return LearningRate(
        optimizer.learning_rate,
        optimizer.warmup_steps,
        optimizer.decay == "linear",
        starts,
        optimizer.inverse_sqrt_after,
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state by the names ``index/name``; the tensors are not copied."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value for index, values in state.items() for name, value in values.items()}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], saved: Mapping[str, Tensor]
) -> None:
    """Load the optimizer's state; each moment gets the memory layout of its parameter.

    Raises UserError on the state of other parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.items():
        number, _, key = name.partition("/")
        index = int(number) if number.isdecimal() else len(parameters)
        if index >= len(parameters) or (tensor.ndim and tensor.shape != parameters[index].shape):
            raise UserError(f"The optimizer's {name} is of another training; give the settings of that one.")
        moment = tensor.shape == parameters[index].shape
        value = torch.empty_like(parameters[index]).copy_(tensor) if moment else tensor
        state.setdefault(index, {})[key] = value.detach()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def restore_scaler(scaler: torch.amp.GradScaler, saved: Mapping[str, Any], source: object) -> None:
    """Load the state of the scaler of float16 from a checkpoint.

    source: the checkpoint in messages. Raises UserError on that of a training of another precision.
    """
    if bool(saved) != scaler.is_enabled():
        raise UserError(f"{source} is of a training of another precision; give the settings of that one.")
    scaler.load_state_dict(dict(saved))
