"""The student of a training, and its frozen copies."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.networks.model import Model, ModelSpec, load_weights


def build_student(spec: ModelSpec, seed: int, initial: Mapping[str, Tensor] | None = None) -> Model:
    """Build a model with the initial weights given, or with some that are a function of the seed.

    Leaves the global RNG alone. Raises UserError when the weights are another network's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        student = Model(spec)
    if initial is not None:
        load_weights(student.network, dict(initial), "init_from.model")
    return student


def contiguous_copy(tensor: Tensor) -> Tensor:
    """Copy to the CPU, in the plain layout that files have (weights live with their channels last)."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def frozen_copy(student: Model) -> Model:
    """Return a copy on the same device, in eval mode, without gradients."""
    copy = Model(student.spec).to(next(student.parameters()).device).requires_grad_(False)
    copy.load_state_dict(student.state_dict())
    return copy.eval()
