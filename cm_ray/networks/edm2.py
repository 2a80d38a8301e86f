"""EDM2's U-Net, whose layers preserve magnitudes.  Karras et al. 2024, section 2 and appendix B, config G.

Modules have the names of the public code, and the channels of attention its order, so that its weights need
no renaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cm_ray.errors import setting
from cm_ray.networks.architectures import EDM2
from cm_ray.networks.blocks import Resample, check_inputs, recomputed
from cm_ray.networks.levels import attends, level_sizes, refuse_unless
from cm_ray.networks.magnitude import (
    MPConv,
    MPFourier,
    MPGained,
    MPLabels,
    mp_cat,
    mp_silu,
    mp_sum,
    renormalise,
    unit,
)

_BALANCE, _LABELS, _CLIP = 0.3, 0.5, 256.0
"""Share of a residual or attention branch in its sum, share of the labels in the embedding, and the largest
activation."""


class EDM2UNet(nn.Module):
    """F_theta(x, time, labels) of magnitude-preserving layers, without biases or group normalisation.

    shape: (c, h, w) of the images; h and w are divisible by 2 once for each level below the first. classes:
    number of classes, 0 for an unconditional network. two_times, takes_scale: the network takes a second
    time, or a guidance scale, the effect of which is zero at first. Raises UserError, with the name of the
    setting, when the settings do not fit the images.
    """

    def __init__(
        self,
        config: EDM2,
        shape: tuple[int, int, int],
        classes: int,
        *,
        two_times: bool = False,
        takes_scale: bool = False,
    ) -> None:
        super().__init__()
        sizes, widths = level_sizes(config, shape), [config.channels * mult for mult in config.channel_mult]
        check_heads(config)
        self.config, self.classes = config, classes
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = MPFourier(widths[0], config.fourier_scale)
        self.emb_noise = MPConv(widths[0], max(widths))
        self.emb_label = MPLabels(classes, max(widths), null=config.label_dropout > 0) if classes else None
        self.enc, skips = _encoder(config, sizes, widths, shape[0])
        self.dec = _decoder(config, sizes, widths, skips)
        self.out_conv = MPConv(widths[0], shape[0], 3)
        self.second_embed = MPGained(widths[0], max(widths)) if two_times else None  # drawn last
        self.scale_embed = MPGained(widths[0], max(widths)) if takes_scale else None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        labels: Tensor | None = None,
        second: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Map images (b, c, h, w), network times, labels, second times and scales, all (b,), to (b, c, h, w).

        The label -1 is the null class, if the settings have a label dropout. Raises ValueError as
        `check_inputs` does.
        """
        added = {"second": (second, self.second_embed), "scale": (scale, self.scale_embed)}
        check_inputs(labels, self.classes, **added)
        embedding = self._embedding(time, labels, added)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # in place of biases
        h = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for layer in self.enc.values():
            h = layer(h, embedding) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.dec.values():
            h = layer(mp_cat(h, skips.pop()) if layer.joins else h, embedding)
        output: Tensor = self.out_conv(h, self.out_gain)
        return output

    def before_step(self) -> None:
        """Normalise the weights: forced weight normalisation, which training does before every step."""
        renormalise(self)

    def _embedding(
        self, time: Tensor, labels: Tensor | None, added: Mapping[str, tuple[Tensor | None, nn.Module | None]]
    ) -> Tensor:
        """Return the embedding of times, labels and added inputs for the blocks, (b, e)."""
        embedding: Tensor = self.emb_noise(self.emb_fourier(time))
        for given, layer in added.values():
            if layer is not None:
                embedding = embedding + layer(self.emb_fourier(given))
        if self.emb_label is not None:
            embedding = mp_sum(embedding, self.emb_label(labels), _LABELS)
        return mp_silu(embedding)


class Block(nn.Module):
    """Two convolutions, modulated by the embedding, beside a skip connection; then attention, if any.

    Figure 21 of the paper. side: an encoder's block normalises each pixel first. joins: the block takes a
    skip connection of the encoder.
    """

    def __init__(
        self,
        config: EDM2,
        inputs: int,
        outputs: int,
        side: Literal["enc", "dec"],
        *,
        direction: str = "keep",
        attention: bool = False,
        joins: bool = False,
    ) -> None:
        super().__init__()
        embedding = config.channels * max(config.channel_mult)
        self.outputs, self.encodes, self.joins = outputs, side == "enc", joins
        self.dropout, self.recompute = config.dropout, config.gradient_checkpointing
        self.heads = outputs // (config.head_channels or outputs)
        self.resample = Resample(direction, (1, 1))
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(outputs if self.encodes else inputs, outputs, 3)
        self.emb_linear = MPConv(embedding, outputs)
        self.conv_res1 = MPConv(outputs, outputs, 3)
        self.conv_skip = MPConv(inputs, outputs, 1) if inputs != outputs else None
        self.attn_qkv = MPConv(outputs, 3 * outputs, 1) if attention else None
        self.attn_proj = MPConv(outputs, outputs, 1) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (b, c, h, w) and the embedding (b, e) to (b, outputs, h', w')."""
        return recomputed(self._forward, x, embedding) if self.recompute else self._forward(x, embedding)

    def _forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resample(x)
        if self.encodes:
            x = unit(self._skipped(x), 1)
        y = self.conv_res0(mp_silu(x))
        modulation = self.emb_linear(embedding, self.emb_gain) + 1
        y = mp_silu(y * modulation[:, :, None, None].to(y.dtype))
        y = self.conv_res1(functional.dropout(y, self.dropout, self.training))
        x = mp_sum(x if self.encodes else self._skipped(x), y, _BALANCE)
        if self.attn_qkv is not None:
            x = mp_sum(x, self._attended(x), _BALANCE)
        return x.clamp(-_CLIP, _CLIP)

    def _skipped(self, x: Tensor) -> Tensor:
        return x if self.conv_skip is None else self.conv_skip(x)

    def _attended(self, x: Tensor) -> Tensor:
        """Return attention by cosines (b, c, h, w); the channels of qkv are (heads, dim, three)."""
        assert self.attn_qkv is not None
        assert self.attn_proj is not None
        b, c, h, w = x.shape
        pixels = x.flatten(2).transpose(1, 2)  # (b, hw, c): a view when channels come last
        qkv = functional.linear(pixels, self.attn_qkv.scaled().flatten(1))
        qkv = unit(qkv.reshape(b, h * w, self.heads, -1, 3), 3)
        q, k, v = qkv.permute(4, 0, 2, 1, 3)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        out = functional.linear(mixed, self.attn_proj.scaled().flatten(1))
        return out.transpose(1, 2).reshape(b, c, h, w)


def _encoder(
    config: EDM2, sizes: list[tuple[int, int]], widths: list[int], colours: int
) -> tuple[nn.ModuleDict, list[int]]:
    """Return the encoder's layers by their names, and their widths."""
    layers: dict[str, nn.Module] = {}
    channels, skips = colours + 1, []
    for level, (size, width) in enumerate(zip(sizes, widths, strict=True)):
        place = f"{size[0]}x{size[1]}"
        if level:
            layers[f"{place}_down"] = Block(config, channels, channels, "enc", direction="down")
        else:
            layers[f"{place}_conv"], channels = MPConv(channels, width, 3), width
        skips.append(channels)
        for index in range(config.blocks):
            attention = attends(config, size)
            layers[f"{place}_block{index}"] = Block(config, channels, width, "enc", attention=attention)
            channels = width
            skips.append(channels)
    return nn.ModuleDict(layers), skips


def _decoder(
    config: EDM2, sizes: list[tuple[int, int]], widths: list[int], skips: list[int]
) -> nn.ModuleDict:
    """Return the decoder's layers by their names; skips: the widths of the encoder's layers."""
    layers: dict[str, nn.Module] = {}
    channels, skips = widths[-1], list(skips)
    for level in reversed(range(len(sizes))):
        size, width = sizes[level], widths[level]
        place = f"{size[0]}x{size[1]}"
        if level == len(sizes) - 1:
            layers[f"{place}_in0"] = Block(config, channels, channels, "dec", attention=True)
            layers[f"{place}_in1"] = Block(config, channels, channels, "dec")
        else:
            layers[f"{place}_up"] = Block(config, channels, channels, "dec", direction="up")
        for index in range(config.blocks + 1):
            inputs, attention = channels + skips.pop(), attends(config, size)
            layers[f"{place}_block{index}"] = Block(
                config, inputs, width, "dec", attention=attention, joins=True
            )
            channels = width
    return nn.ModuleDict(layers)


def check_heads(config: EDM2) -> None:
    """Raise UserError, with the name of the setting, when heads do not divide the channels."""
    widths, size = [config.channels * mult for mult in config.channel_mult], config.head_channels
    divides = size == 0 or all(width % size == 0 for width in widths)
    refuse_unless(divides, f"{setting('network.head_channels')} {size} does not divide the channels {widths}")
