"""Files of tensors by name, from anywhere: read without running anything that is in them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cm_ray.errors import UserError

Weights = dict[str, Tensor]

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""What files of weights are called."""


def read_tensors(file: Path) -> tuple[Weights, dict[str, str]]:
    """Return the tensors of a file by name, float32 where they were of another precision, and its metadata.

    Unpickles no code. Raises UserError, naming the file, when it is of another kind, cut off, or holds
    anything but tensors by name.
    """
    metadata: dict[str, str] = {}
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise whatever the bytes lead them to
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{file} is no file of weights (.safetensors, or .pt with tensors by name): {said}."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file} does not hold tensors by name; give a state dict.")
    return {
        name: value.float() if value.is_floating_point() else value for name, value in found.items()
    }, metadata
