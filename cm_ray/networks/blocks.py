"""The parts of the U-Nets: time embedding, residual block, attention, resampling.

Module names follow OpenAI's state dicts (``in_layers``, ``emb_layers``, ``out_layers``, ``skip_connection``,
``qkv``, ``proj_out``), so that published weights load without renaming.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def sinusoidal_embedding(time: Tensor, channels: int, max_period: float = 10_000.0) -> Tensor:
    """Return [cos, sin] of the times at `channels // 2` geometric frequencies, (b, channels) float32.

    time: (b,), as given by the preconditioning. Vaswani et al. 2017, section 3.5.
    """
    half = channels // 2
    exponents = torch.arange(half, device=time.device, dtype=torch.float32) / half
    angles = time.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


_Layer = TypeVar("_Layer", bound=nn.Module)


def zeroed(module: _Layer) -> _Layer:
    """Set all parameters of a module to zero, so that a block begins as the identity; return it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Downsample(nn.Module):
    """Halve the resolution by a strided 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, h/2, w/2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Double the resolution by nearest neighbours and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, 2h, 2w)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def resample(x: Tensor, direction: str) -> Tensor:
    """Halve (``down``, mean of 2x2), double (``up``, nearest) or keep (``keep``) the resolution."""
    if direction == "down":
        return functional.avg_pool2d(x, 2)
    if direction == "up":
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")
    return x


class ResidualBlock(nn.Module):
    """Two convolutions modulated by the embedding, beside a skip connection; may resample.

    Dhariwal & Nichol 2021, sections 3 and A.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        embedding: int,
        groups: int,
        dropout: float,
        scale_shift: bool,
        direction: str = "keep",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.direction, self.scale_shift, self.recompute = direction, scale_shift, recompute
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding, (2 if scale_shift else 1) * out_channels)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (b, c, h, w) and the embedding (b, e) to (b, out_channels, h', w')."""
        if self.recompute and torch.is_grad_enabled():
            result: Tensor = checkpoint(self._forward, x, embedding, use_reentrant=False)
            return result
        return self._forward(x, embedding)

    def _forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = convolution(resample(activation(norm(x)), self.direction))
        x = resample(x, self.direction)
        modulation = self.emb_layers(embedding)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, norm(h), 1 + scale)
        else:
            h = norm(h + modulation)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, beside a skip connection.

    ``qkv`` is a 1x1 convolution over the flattened pixels whose output channels are ordered
    (three, heads, dim), as in OpenAI's code.
    """

    def __init__(self, channels: int, *, head_channels: int, groups: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape; the embedding is not used."""
        b, c, h, w = x.shape
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (b, hw, c): a view when channels come last
        qkv = functional.linear(pixels, self.qkv.weight.squeeze(-1), self.qkv.bias)
        q, k, v = qkv.reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        out = functional.linear(mixed, self.proj_out.weight.squeeze(-1), self.proj_out.bias)
        return x + out.transpose(1, 2).reshape(b, c, h, w)
