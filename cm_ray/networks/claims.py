"""Checks what the specification of a model claims, before anything is allocated for it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cm_ray.errors import UserError
from cm_ray.networks.architectures import Architecture
from cm_ray.networks.model import ModelSpec, build_network, spec_from_dict
from cm_ray.networks.unet import UNet
from cm_ray.networks.weight_names import differences
from cm_ray.settings.tree import flatten
from cm_ray.storage.shapes import misfit

_MOST_SIDE, _MOST_CHANNELS, _MOST_STEPS, _MOST_TEXT = 8192, 4096, 100_000, 100_000
"""Limits on pixels per side, channels of images, steps of a sampler, and characters of its text."""
_SPEC = {
    "network": dict,
    "diffusion": dict,
    "shape": [int],
    "class_names": [str],
    "class_counts?": [int],
    "time_points": [[float]],
    "sampler": str,
    "reading?": dict,
    "ema_length?": float,
    "initial_share?": float,
    "augment?": int,
}
"""The shape of model.json; network, diffusion and reading are checked as settings."""
_LEAST_TENSORS = 8
"""Every block of every level has at least this many tensors, with its twin in the decoder."""


def parse_spec(place: str, values: Any) -> ModelSpec:
    """Return a specification from JSON values. Raises UserError, with their place, on values that cannot "
    "be."""
    try:
        if problem := misfit(values, _SPEC):
            raise UserError(problem)
        _check_text(values["sampler"])
        spec = spec_from_dict(values, place)
        _check_numbers(spec)
    except Exception as error:  # values of a stranger may be anything
        reason = str(error).rstrip(".") if isinstance(error, UserError) else repr(error)
        raise UserError(f"{place} is not the specification of a model ({reason}); restore it.") from error
    return spec


def check_claims(spec: ModelSpec, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Raise UserError, naming the source, when weights are not those of the U-Net that a model claims.

    Networks of other classes are compared when they are built.
    """
    if not isinstance(spec.network, Architecture):
        return
    wanted = meta_network(spec, len(weights), source).state_dict()
    if found := differences(wanted, weights):
        raise UserError(
            f"{source} belongs to another network: {found}; use the settings that it was trained with."
        )


def meta_network(spec: ModelSpec, tensors: int, source: Path | str) -> nn.Module:
    """Return the U-Net of a specification without memory for its weights.

    tensors: the number of tensors in the file of its weights, which bounds the number of its layers. Raises
    UserError, naming the source, when it has too many or too large layers, and as `UNet` does.
    """
    assert isinstance(spec.network, Architecture)
    blocks, levels = spec.network.blocks, len(spec.network.channel_mult)
    if blocks * levels * _LEAST_TENSORS > tensors:
        raise UserError(
            f"{source} claims a network of {levels} levels with {blocks} blocks each, and has {tensors} "
            "tensors, too few for it: restore the file, or use the settings that it was trained with."
        )
    try:
        with torch.device("meta"):
            return build_network(spec)
    except (RuntimeError, OverflowError, MemoryError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source} claims a network that is too large to exist: restore the file.") from error


def meta_unet(spec: ModelSpec, tensors: int, source: Path | str) -> UNet:
    """Return `meta_network` of adm, ddpm++ or ncsn++, whose layers formats of others rename."""
    network = meta_network(spec, tensors, source)
    assert isinstance(network, UNet)
    return network


def _check_text(sampler: Any) -> None:
    """Raise ValueError on the text of a sampler whose steps would fill the memory."""
    if len(sampler) > _MOST_TEXT or any(int(n) > _MOST_STEPS for n in re.findall(r":(\d{1,4000})", sampler)):
        raise ValueError(f"the sampler {sampler[:40]} has too many steps")


def _check_numbers(spec: ModelSpec) -> None:
    """Raise ValueError on numbers that no model has."""
    channels, *sides = spec.shape
    if not 1 <= channels <= _MOST_CHANNELS or not all(1 <= side <= _MOST_SIDE for side in sides):
        raise ValueError(f"images of shape {spec.shape}")
    numbers = [each for each in flatten(spec.diffusion).values() if isinstance(each, float)]
    if not all(math.isfinite(each) for each in numbers):
        raise ValueError("noise levels that are not finite")
    if spec.ema_length < 0 or not 0 <= spec.initial_share <= 1:
        raise ValueError(f"an average of length {spec.ema_length} and share {spec.initial_share}")
    if not 0 <= spec.augment <= _MOST_CHANNELS:
        raise ValueError(f"{spec.augment} numbers of an augmentation")
    for taus in spec.time_points:
        ladder = (spec.diffusion.t_max, *taus, spec.diffusion.t_min)
        if not all(high > low for high, low in itertools.pairwise(ladder)):
            raise ValueError(f"time points {list(taus[:4])} that do not descend")
