"""Memory of samples, counted on tensors without storage."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cm_ray.core.noise import Purpose, normal
from cm_ray.networks.arithmetic import Precision
from cm_ray.networks.counted_memory import CountedMemory, without_storage
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.normalisation import GroupNorm


@lru_cache(maxsize=64)
def sampling_bytes(spec: ModelSpec, rows: int, precision: Precision, device: str = "cpu") -> int:
    """Return the peak, in bytes beyond the weights, of a network evaluation of `rows` samples and its noise.

    device: "cpu" or "cuda", see `normalise_in_float32`. Raises UserError when the network does not fit the
    images.
    """
    with torch.device("meta"):
        model = Model(spec)
    if device == "cuda":
        normalise_in_float32(model)
    with FakeTensorMode(), CountedMemory(device) as counted, torch.no_grad():
        without_storage(model.eval())
        model.precision = counted_precision(precision)
        begun = counted.peak_from_now()
        x = normal(0, 0, torch.arange(rows), Purpose.SAMPLE, spec.shape)
        model(x, torch.ones(rows), torch.zeros(rows, dtype=torch.int64) if spec.classes else None)
    return counted.most - begun


def counted_precision(precision: Precision) -> Precision:
    """Return the precision that is counted: tf32 has the size of float32, and not every device has it."""
    return "float32" if precision == "tf32" else precision


def normalise_in_float32(model: Model) -> None:
    """Make group norms cast their inputs to float32, as autocast does on CUDA but not on the CPU."""
    for layer in model.modules():
        if isinstance(layer, GroupNorm):
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
