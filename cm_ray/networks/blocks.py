"""Layers of the U-Nets: time features, residual blocks, attention, resampling.

Modules have the names of OpenAI's state dicts (``in_layers``, ``emb_layers``, ``out_layers``,
``skip_connection``, ``qkv``, ``proj_out``), so that published weights load without renaming.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cm_ray.networks.architectures import GroupNormUNet
from cm_ray.networks.families import Family
from cm_ray.networks.normalisation import GroupNorm


def sinusoidal_embedding(
    time: Tensor, channels: int, max_period: float = 10_000.0, *, sine_first: bool = False
) -> Tensor:
    """Return [cos, sin] of the times at `channels // 2` geometric frequencies, (b, channels).

    The result is float32, or float64 of times in float64. time: (b,), the network time of the
    preconditioning. sine_first: return [sin, cos], with 1/max_period as the last frequency, as in DDPM++
    (Song et al. 2021). Vaswani et al. 2017, section 3.5.
    """
    half = channels // 2
    steps = half - 1 if sine_first else half
    exponents = torch.arange(half, device=time.device, dtype=torch.float32) / steps
    angles = _at_least_float32(time)[:, None] * torch.exp(-math.log(max_period) * exponents)
    halves = [angles.sin(), angles.cos()] if sine_first else [angles.cos(), angles.sin()]
    return torch.cat(halves, dim=1)


def _at_least_float32(time: Tensor) -> Tensor:
    return time if time.dtype == torch.float64 else time.float()


class SinusoidalFeatures(nn.Module):
    """Maps times to sines and cosines of fixed frequencies; see `sinusoidal_embedding`."""

    def __init__(self, channels: int, *, sine_first: bool) -> None:
        super().__init__()
        self.channels, self.sine_first = channels, sine_first

    def forward(self, time: Tensor) -> Tensor:
        """Map times (b,) to (b, channels)."""
        return sinusoidal_embedding(time, self.channels, sine_first=self.sine_first)


class FourierFeatures(nn.Module):
    """Maps times to sines and cosines of random frequencies, which are saved with the weights.

    scale: standard deviation of the frequencies. Tancik et al. 2020; Song et al. 2021, appendix C.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(channels // 2) * scale, requires_grad=False)

    def forward(self, time: Tensor) -> Tensor:
        """Map times (b,) to (b, channels) in float32, or float64 of float64, sines first."""
        angles = _at_least_float32(time)[:, None] * (2 * math.pi * self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class LabelFeatures(nn.Linear):
    """Linear layer of labels as one-hot vectors, scaled by sqrt(classes) to unit variance.

    null: the network has a null class, -1, whose one-hot vector is zero.
    """

    def __init__(self, classes: int, channels: int, *, null: bool) -> None:
        super().__init__(classes, channels)
        self.null = null

    def forward(self, labels: Tensor) -> Tensor:
        """Map labels (b,) to (b, out_features)."""
        rows = label_rows(self.weight.t(), labels, null=self.null)
        return rows * math.sqrt(self.in_features) + self.bias


class LabelEmbedding(nn.Embedding):
    """Embedding of labels; null: the network has a null class, -1, whose embedding is zero."""

    def __init__(self, classes: int, channels: int, *, null: bool) -> None:
        super().__init__(classes, channels)
        self.null = null

    def forward(self, labels: Tensor) -> Tensor:
        """Map labels (b,) to (b, channels)."""
        return label_rows(self.weight, labels, null=self.null)


def label_rows(table: Tensor, labels: Tensor, *, null: bool) -> Tensor:
    """Return the rows of a table (classes, channels) of labels (b,); zeros of the label -1, if null is set.

    So the null class is the zero vector in place of a one-hot vector, as in the code of Karras et al. 2022.
    It has no weights of its own: networks with and without it have the same.
    """
    if not null:
        return functional.embedding(labels, table)
    rows = functional.embedding(labels.clamp(min=0), table)
    return torch.where(labels[:, None] >= 0, rows, torch.zeros_like(rows))


def check_inputs(
    labels: Tensor | None, classes: int, **added: tuple[Tensor | None, nn.Module | None]
) -> None:
    """Raise ValueError when a conditional network gets no labels, or another gets some; so of added inputs.

    added: by its name, an input that not every network has, and the layers of those that have it.
    """
    for name, (given, layers) in added.items():
        if (given is None) != (layers is None):
            raise ValueError(f"a network with the input {name} needs it, and another takes none")
    if (labels is None) != (classes == 0):
        raise ValueError("a conditional network needs labels, and an unconditional one takes none")


def recomputed(block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return a block's output; where gradients are computed, its activations are not kept but made again."""
    if not torch.is_grad_enabled():
        return block(*inputs)
    result: Tensor = checkpoint(block, *inputs, use_reentrant=False)
    return result


_Layer = TypeVar("_Layer", bound=nn.Module)


def zeroed(module: _Layer) -> _Layer:
    """Set all parameters of a module to zero and return it; a block that ends with it is the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Downsample(nn.Module):
    """Halves the resolution by a strided 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, h/2, w/2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Doubles the resolution by nearest neighbours and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, 2h, 2w)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Resample(nn.Module):
    """Halves (``down``), doubles (``up``) or keeps (``keep``) the resolution with a separable filter.

    taps: filter along each axis; (1, 1) is average pooling and nearest neighbours. padding: zeros beyond each
    border; None for the number that keeps the image in place.
    """

    kernel: Tensor

    def __init__(self, direction: str, taps: tuple[float, ...], padding: int | None = None) -> None:
        super().__init__()
        self.direction, self.box = direction, taps == (1, 1) and padding is None
        self.padding = (len(taps) - 1) // 2 if padding is None else padding
        if direction != "keep" and not self.box:
            side = torch.tensor(taps) / sum(taps)
            self.register_buffer("kernel", torch.outer(side, side)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, c, h', w')."""
        if self.direction == "keep":
            return x
        if self.box:
            if self.direction == "down":
                return functional.avg_pool2d(x, 2)
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        if self.direction == "down":
            return functional.conv2d(x, kernel, stride=2, padding=self.padding, groups=channels)
        return functional.conv_transpose2d(x, 4 * kernel, stride=2, padding=self.padding, groups=channels)


class PyramidConvolution(nn.Conv2d):
    """A 3x3 convolution and a filter that halves the resolution; the padding covers both.

    It brings the input to each level of NCSN++ ("residual" progressive input, Song et al. 2021).
    """

    def __init__(self, channels: int, out_channels: int, taps: tuple[float, ...]) -> None:
        super().__init__(channels, out_channels, 3, padding=1 + (len(taps) - 1) // 2)
        self.halve = Resample("down", taps, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, out_channels, h/2, w/2)."""
        halved: Tensor = self.halve(super().forward(x))
        return halved


class ResidualBlock(nn.Module):
    """Two convolutions, modulated by the embedding, and a skip connection; optionally resamples.

    Dhariwal & Nichol 2021, sections 3 and A; Song et al. 2021, appendix H.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        config: GroupNormUNet,
        family: Family,
        direction: str = "keep",
    ) -> None:
        super().__init__()
        groups, eps = config.norm_groups, family.eps
        self.scale_shift, self.recompute = config.scale_shift, config.gradient_checkpointing
        self.skip_scale = family.skip_scale
        self.resample = Resample(direction, family.filter)
        self.in_layers = nn.Sequential(
            GroupNorm(groups, channels, eps), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(4 * config.channels, (2 if config.scale_shift else 1) * out_channels)
        )
        self.out_layers = nn.Sequential(
            GroupNorm(groups, out_channels, eps),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        projects = channels != out_channels or (family.project_resampled and direction != "keep")
        self.skip_connection = nn.Conv2d(channels, out_channels, 1) if projects else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (b, c, h, w) and the embedding (b, e) to (b, out_channels, h', w')."""
        return recomputed(self._forward, x, embedding) if self.recompute else self._forward(x, embedding)

    def _forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, _, convolution = self.in_layers  # the norm applies SiLU
        h = convolution(self.resample(norm(x, silu=True)))
        x = self.resample(x)
        modulation = self.emb_layers(embedding)[:, :, None, None]
        norm, _, dropout, convolution = self.out_layers
        if self.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = norm(h, (scale, shift), silu=True)
        else:
            h = norm(h + modulation, silu=True)
        h = convolution(dropout(h))
        return scaled(self.skip_connection(x) + h, self.skip_scale)


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, and a skip connection.

    ``qkv`` is a 1x1 convolution whose output channels are ordered (three, heads, dim), as in OpenAI's code
    for consistency models.
    """

    def __init__(self, channels: int, config: GroupNormUNet, family: Family) -> None:
        super().__init__()
        self.heads = channels // (config.head_channels or channels)
        self.skip_scale = family.skip_scale
        self.norm = GroupNorm(config.norm_groups, channels, family.eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, _embedding: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape; the embedding is not used."""
        b, c, h, w = x.shape
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (b, hw, c): a view when channels come last
        qkv = functional.linear(pixels, self.qkv.weight.flatten(1), self.qkv.bias)
        q, k, v = qkv.reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        out = functional.linear(mixed, self.proj_out.weight.flatten(1), self.proj_out.bias)
        return scaled(x + out.transpose(1, 2).reshape(b, c, h, w), self.skip_scale)


def scaled(x: Tensor, factor: float) -> Tensor:
    """Return x times factor; x itself if the factor is 1."""
    return x if factor == 1 else x * factor
