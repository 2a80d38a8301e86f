"""Group normalisation, modulation and SiLU in one pass over images whose channels come last, on CPUs.

PyTorch's own kernels for that layout read a group's few channels number by number; in bfloat16 they took a
quarter of a training step. Here all large operations run along the channels of all groups, only small ones
(b, c) know the groups, and neither the normalised nor the modulated images are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

LEAST_PIXELS = 256
"""Of smaller images, an operation takes less time than its call, and PyTorch's few calls are faster."""


class GroupNorm(nn.GroupNorm):
    """Group normalisation that can be modulated and followed by SiLU, fused where that is faster."""

    def forward(
        self, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None, *, silu: bool = False
    ) -> Tensor:
        """Map (b, c, h, w) to the same shape: SiLU(norm(x) (1 + scale) + shift), as far as asked for.

        modulation: scale and shift, (b, c, 1, 1).
        """
        if _fuses(x):
            return self._fused(x, modulation, silu)
        y = super().forward(x)
        if modulation is not None:
            scale, shift = modulation
            y = torch.addcmul(shift, y, 1 + scale)
        return functional.silu(y) if silu else y

    def _fused(self, x: Tensor, modulation: tuple[Tensor, Tensor] | None, silu: bool) -> Tensor:
        factor, offset = self.weight.expand(len(x), -1), self.bias.expand(len(x), -1)
        if modulation is not None:
            scale, shift = (part.flatten(1).float() for part in modulation)
            factor, offset = factor * (1 + scale), torch.addcmul(shift, offset, 1 + scale)
        result: Tensor = _FusedNorm.apply(x, factor, offset, self.num_groups, self.eps, silu)
        return result


def _fuses(x: Tensor) -> bool:
    """Tell whether the fused pass is the faster one; a compiler fuses PyTorch's own operations itself."""
    plain = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (
        not plain
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x[0, 0].numel() >= LEAST_PIXELS
        and x.is_contiguous(memory_format=torch.channels_last)
    )


class _FusedNorm(torch.autograd.Function):
    """y = [SiLU](xhat · factor + offset), xhat = (x - mean)/std of each group; all in float32.

    factor, offset: (b, c). Wu & He 2018 for the normalisation; its gradient, with g = dL/d(xhat · factor +
    offset) and means over the group, is (factor g - mean(factor g) - xhat mean(factor g xhat))/std.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, factor: Tensor, offset: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        pixels = _pixels(x)
        mean = _group_mean(pixels.sum(1, dtype=torch.float32), groups, pixels.shape[1])
        centred = pixels - mean[:, None]
        variance = _group_mean((centred * centred).sum(1), groups, pixels.shape[1])
        inverse = (variance + eps).rsqrt()
        y = torch.addcmul(offset[:, None], centred, (inverse * factor)[:, None])
        if silu:
            functional.silu(y, inplace=True)
        ctx.save_for_backward(x, factor, offset, mean, inverse)
        ctx.groups, ctx.silu = groups, silu
        return _images(y.to(x.dtype), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, factor, offset, mean, inverse = ctx.saved_tensors
        centred = _pixels(x) - mean[:, None]
        g = _pixels(gradient.contiguous(memory_format=torch.channels_last)).float()
        if ctx.silu:
            before = torch.addcmul(offset[:, None], centred, (inverse * factor)[:, None])
            g = torch.ops.aten.silu_backward(g, before)
        d_offset, count = g.sum(1), g.shape[1]
        d_factor = (g * centred).sum(1) * inverse
        first = _group_mean(factor * d_offset, ctx.groups, count) * inverse
        second = _group_mean(factor * d_factor, ctx.groups, count) * inverse**2
        dx = torch.addcmul(-first[:, None], centred, -second[:, None])
        dx.addcmul_(g, (factor * inverse)[:, None])
        return _images(dx.to(x.dtype), x), d_factor, d_offset, None, None, None


def _pixels(x: Tensor) -> Tensor:
    """View (b, c, h, w) with its channels last as (b, hw, c)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _images(pixels: Tensor, like: Tensor) -> Tensor:
    """View (b, hw, c) as images of the shape of `like`, channels last."""
    b, c, h, w = like.shape
    return pixels.view(b, h, w, c).permute(0, 3, 1, 2)


def _group_mean(sums: Tensor, groups: int, count: int) -> Tensor:
    """Return, for every channel (b, c), the mean over its group of what was summed over `count` pixels."""
    b, c = sums.shape
    means = sums.view(b, groups, c // groups).sum(2, keepdim=True) / (count * (c // groups))
    return means.expand(-1, -1, c // groups).reshape(b, c)
