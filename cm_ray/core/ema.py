"""Exponential moving averages of weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def update_average(average: Sequence[Tensor], current: Sequence[Tensor], decay: float) -> None:
    """average <- decay · average + (1 - decay) · current, in place, for all tensors in one fused call."""
    torch._foreach_lerp_(list(average), list(current), 1.0 - decay)
