"""The number of network evaluations of a sample, counted where a sampler does not fix it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from cm_ray.drawing.requests import Request, sample_units
from cm_ray.networks.model import Model

_SAMPLES = 100


def mean_evaluations(model: Model, request: Request, samples: int = _SAMPLES) -> float:
    """Return the mean number of network evaluations of a request's samples.

    It is the sampler's own number; of an adaptive one it is counted while the first `samples` are drawn at
    once: of all evaluations that are computed, with those in which a sample waits for others of its batch.
    """
    if request.sampler.nfe:
        return float(request.sampler.nfe)
    rows = 0

    def count(network: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    few = replace(request, count=min(samples, request.count), unit=samples)
    hook = model.network.register_forward_pre_hook(count)
    try:
        drawn = sum(len(images) for images in sample_units(model, few))
    finally:
        hook.remove()
    return rows / drawn
