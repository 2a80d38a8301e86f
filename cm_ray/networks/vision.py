"""Make torchvision importable beside a CPU build of PyTorch.

The registry offers torchvision only as a CUDA build, whose import fails beside a CPU torch with "operator
torchvision::nms does not exist". Declaring the two operators' schemas first mends it. Import this module
before lpips, clean-fid or torchvision, in every process.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # a Library undoes its definitions when it is collected


def torchvision() -> ModuleType:
    """Import and return torchvision, with the missing operators declared where they are missing."""
    if not _declared and not torch.cuda.is_available():
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + _SCHEMA)
        _declared.append(library)
    return importlib.import_module("torchvision")
