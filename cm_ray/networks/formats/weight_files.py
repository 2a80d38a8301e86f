"""Weights by their names, and the names of their files: FILE, or FILE#PLACE for a part of it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

Weights = dict[str, Tensor]

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin", ".pkl", ".pickle")
"""Endings of files of weights, and of pickles, which are refused with what to do instead."""


def split_part(path: Path) -> tuple[Path, str]:
    """Return the file and the place in it that FILE#PLACE names; the place is empty where none is named."""
    if path.exists():
        return path, ""
    file, separator, place = str(path).rpartition("#")
    return (Path(file), place) if separator and Path(file).is_file() else (path, "")


def as_float32(weights: Weights) -> Weights:
    """Return weights in float32; tensors of other kinds of numbers are left as they are."""
    return {name: each.float() if each.is_floating_point() else each for name, each in weights.items()}
