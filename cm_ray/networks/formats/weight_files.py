"""Reads files of named tensors without running any code in them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cm_ray.errors import UserError

Weights = dict[str, Tensor]

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Endings of files of weights."""


def read_tensors(file: Path) -> tuple[Weights, dict[str, str]]:
    """Return the tensors of a file by name, floating-point ones as float32, and the metadata of the file.

    No code is unpickled. Raises UserError, with the name of the file, when it has another format, is cut off,
    or holds anything but named tensors.
    """
    metadata: dict[str, str] = {}
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # readers raise exceptions of many types on invalid bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"{file} is not a file of weights (.safetensors, or .pt with a state dict): {reason}; give one."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file} does not hold named tensors; give a state dict.")
    return {
        name: value.float() if value.is_floating_point() else value for name, value in found.items()
    }, metadata
