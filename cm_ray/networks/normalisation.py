"""Fused group normalisation, modulation and SiLU for bfloat16 images in channels-last layout on CPUs.

PyTorch's kernels for this layout read the few channels of a group element by element, and take a quarter of a
training step. Here the large operations run along all channels, only small tensors (b, c) are divided into
groups, and neither the normalised nor the modulated images are saved for the backward pass. In float32,
PyTorch's kernels are as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn import functional

LEAST_PIXELS = 256
"""Images with fewer pixels use PyTorch's kernels: there the overhead of calls is larger than the work."""
IN_CACHE = 2**18
"""Elements that are processed at a time: 1 MiB in float32, the size of a core's second-level cache."""


class GroupNorm(nn.GroupNorm):
    """Group normalisation with optional modulation and SiLU, fused where that is faster."""

    def forward(
        self, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None, *, silu: bool = False
    ) -> Tensor:
        """Return SiLU(norm(x) (1 + scale) + shift), of the same shape as x (b, c, h, w).

        modulation: scale and shift, (b, c, 1, 1) each; None for norm(x). silu: False leaves SiLU out.
        """
        moving = forward_ad.unpack_dual(x).tangent is not None
        if _fuses(x) and not moving:
            return self._fused(x, modulation, silu)
        y = self._moving(x) if moving else super().forward(x)
        if modulation is not None:
            scale, shift = modulation
            y = torch.addcmul(shift, y, 1 + scale)
        return functional.silu(y) if silu else y

    def _moving(self, x: Tensor) -> Tensor:
        """Return norm(x) with its derivative in forward mode, by a kernel of PyTorch's in place of twenty.

        The Jacobian of a normalisation is symmetric, so that the backward kernel without weights applies it.
        The result has the layout of x, on which the order of a dropout mask depends.
        """
        pixels, whole = x[0, 0].numel(), x.contiguous()
        value, tangent = forward_ad.unpack_dual(whole)
        sizes = len(x), x.shape[1], pixels, self.num_groups
        y, mean, inverse = torch.native_group_norm(value, self.weight, self.bias, *sizes, self.eps)
        backward = torch.ops.aten.native_group_norm_backward
        moved, _, _ = backward(tangent.contiguous(), value, mean, inverse, None, *sizes, [True, False, False])
        moved = moved * self.weight[:, None, None]
        last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        layout = torch.channels_last if last else torch.contiguous_format
        return forward_ad.make_dual(*(each.contiguous(memory_format=layout) for each in (y, moved)))

    def _fused(self, x: Tensor, modulation: tuple[Tensor, Tensor] | None, silu: bool) -> Tensor:
        factor, offset = self.weight.expand(len(x), -1), self.bias.expand(len(x), -1)
        if modulation is not None:
            scale, shift = (tensor.flatten(1).float() for tensor in modulation)
            factor, offset = factor * (1 + scale), torch.addcmul(shift, offset, 1 + scale)
        result: Tensor = _FusedNorm.apply(x, factor, offset, self.num_groups, self.eps, silu)
        return result


def _fuses(x: Tensor) -> bool:
    """Return True if the fused operation is faster; torch.compile fuses PyTorch's own operations itself."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and x[0, 0].numel() >= LEAST_PIXELS
        and x.is_contiguous(memory_format=torch.channels_last)
    )


class _FusedNorm(torch.autograd.Function):
    """y = [SiLU](xhat · factor + offset), xhat = (x - mean)/std of each group; all in float32.

    factor, offset: (b, c). Some samples are processed at a time, so that intermediate results stay in the
    processor's cache. The normalisation is that of Wu & He 2018. With g = dL/d(xhat · factor + offset) and
    means over the group, its gradient is (factor g - mean(factor g) - xhat mean(factor g xhat))/std.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, factor: Tensor, offset: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        pixels = _pixels(x)
        y, mean, inverse = torch.empty_like(pixels), torch.empty_like(factor), torch.empty_like(factor)
        for part in _parts(pixels):
            numbers = pixels[part].to(torch.float32, copy=True)
            count = numbers.shape[1]
            mean[part] = _group_mean(numbers.sum(1), groups, count)
            centred = numbers.sub_(mean[part, None])
            inverse[part] = (_group_mean(centred.square().sum(1), groups, count) + eps).rsqrt()
            z = torch.addcmul(offset[part, None], centred, (inverse[part] * factor[part])[:, None])
            y[part] = functional.silu(z, inplace=True) if silu else z
        ctx.save_for_backward(x, factor, offset, mean, inverse)
        ctx.groups, ctx.silu = groups, silu
        return _images(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, offset, mean, inverse = ctx.saved_tensors
        pixels, gradients = _pixels(x), _pixels(gradient.contiguous(memory_format=torch.channels_last))
        slope, count = inverse * factor, pixels.shape[1]
        dx, d_factor, d_offset = (torch.empty_like(like) for like in (pixels, factor, offset))
        for part in _parts(pixels):
            centred = pixels[part].to(torch.float32, copy=True).sub_(mean[part, None])
            g = gradients[part].float()
            if ctx.silu:
                z = torch.addcmul(offset[part, None], centred, slope[part, None])
                g = torch.ops.aten.silu_backward(g, z)
            d_offset[part] = g.sum(1)
            d_factor[part] = (g * centred).sum(1) * inverse[part]
            first = _group_mean(factor[part] * d_offset[part], ctx.groups, count) * inverse[part]
            second = _group_mean(factor[part] * d_factor[part], ctx.groups, count) * inverse[part] ** 2
            d = torch.addcmul(-first[:, None], centred, -second[:, None])
            dx[part] = d.addcmul_(g, slope[part, None])
        return _images(dx, x), d_factor, d_offset, None, None, None


def _parts(pixels: Tensor) -> Iterator[slice]:
    """Yield slices of the samples of (b, hw, c) with about `IN_CACHE` elements each."""
    rows = max(1, IN_CACHE // pixels[0].numel())
    for first in range(0, len(pixels), rows):
        yield slice(first, first + rows)


def _pixels(x: Tensor) -> Tensor:
    """Return a view (b, hw, c) of images (b, c, h, w) in channels-last layout."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _images(pixels: Tensor, like: Tensor) -> Tensor:
    """Return a view of (b, hw, c) as images of the shape of `like`, in channels-last layout."""
    b, c, h, w = like.shape
    return pixels.view(b, h, w, c).permute(0, 3, 1, 2)


def _group_mean(sums: Tensor, groups: int, count: int) -> Tensor:
    """Return the mean over the group of every channel (b, c), given sums over `count` pixels (b, c)."""
    b, c = sums.shape
    means = sums.view(b, groups, c // groups).sum(2, keepdim=True) / (count * (c // groups))
    return means.expand(-1, -1, c // groups).reshape(b, c)
