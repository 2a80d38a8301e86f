"""Imports torchvision, also with a CPU build of PyTorch.

PyPI has torchvision only as a CUDA build. With a CPU build of PyTorch its import fails with "operator
torchvision::nms does not exist", unless the schemas of two operators are declared first. Call `torchvision`
before importing lpips or clean-fid, in every process.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

from cm_ray.extras import needs

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # keeps the Library alive: its definitions end with it


def torchvision() -> ModuleType:
    """Import and return torchvision; operators that are missing are declared."""
    needs("torchvision", extra="scores")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # it was imported only in part
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + _SCHEMA)
    _declared.append(library)
    return importlib.import_module("torchvision")
