"""Make torchvision importable beside a CPU build of PyTorch.

The registry offers torchvision only as a CUDA build, whose import fails beside a CPU torch with "operator
torchvision::nms does not exist". Declaring the two operators' schemas first mends it. Import this module
before lpips, clean-fid or torchvision, in every process.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

from cm_ray.extras import needs

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # a Library undoes its definitions when it is collected


def torchvision() -> ModuleType:
    """Import and return torchvision, with the missing operators declared where they are missing."""
    needs("torchvision", extra="scores")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-imported
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _declared.append(library)
    return importlib.import_module("torchvision")
