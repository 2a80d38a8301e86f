"""The student of a training and its frozen copies."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.errors import setting
from cm_ray.networks.model import Model, ModelSpec, load_weights
from cm_ray.networks.unet import starting_weights


def build_student(spec: ModelSpec, seed: int, initial: Mapping[str, Tensor] | None = None) -> Model:
    """Return a model with the given initial weights, or with random ones that are a function of the seed.

    Those of a network without a second time, a scale or augmentations are a start of one with them; see
    `starting_weights`. The global random state does not change. Raises UserError when the weights belong to
    another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        student = Model(spec)
    if initial is not None:
        taken = starting_weights(initial, student.network)
        load_weights(student.network, taken, setting("init_from.model"))
    return student


def contiguous_copy(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU in contiguous layout, for files (weights are in channels-last layout)."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def frozen_copy(student: Model) -> Model:
    """Return a copy on the same device, in eval mode, without gradients."""
    copy = Model(student.spec).to(next(student.parameters()).device).requires_grad_(False)
    copy.load_state_dict(student.state_dict())
    return copy.eval()
