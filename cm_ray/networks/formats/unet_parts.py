"""The parts of a U-Net by what they are, so that every foreign naming is a function of a part.

Our names are OpenAI's, which count stages; diffusers and EDM count levels and blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from cm_ray.networks.blocks import AttentionBlock, Downsample, ResidualBlock, Upsample
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import UNet

Kind = Literal["residual", "attention", "resampling", "pyramid"]
Side = Literal["down", "middle", "up"]


@dataclass(frozen=True, slots=True)
class Part:
    """A layer of the U-Net that belongs to a level."""

    name: str
    """Ours, before the names of its own layers."""
    kind: Kind
    """resampling: a residual block that resamples, or a convolution that does."""
    side: Side
    level: int
    """0 is that of the full resolution; that of a resampling layer, the one that it comes from."""
    block: int
    """Its number in its level and side; attention has that of the block before it."""


def network_of(spec: ModelSpec) -> UNet:
    """Build a specification's network without memory for its weights. Raises UserError as `UNet`."""
    with torch.device("meta"):
        return UNet(spec.unet, spec.shape, spec.classes)


def parts(network: UNet) -> Iterator[Part]:
    """Yield all parts that belong to a level, in the order of the forward pass."""
    level = block = 0
    for number, stage in enumerate(network.input_blocks[1:], 1):
        name = f"input_blocks.{number}"
        if _resamples(next(iter(stage.children()))):
            yield Part(f"{name}.0", "resampling", "down", level, block)
            if str(number) in network.pyramid:
                yield Part(f"pyramid.{number}", "pyramid", "down", level, block)
            level, block = level + 1, 0
        else:
            yield from _stage(name, stage, "down", level, block)
            block += 1
    for number, layer in enumerate(network.middle_block):
        kind: Kind = "attention" if isinstance(layer, AttentionBlock) else "residual"
        yield Part(f"middle_block.{number}", kind, "middle", level, number // 2)
    for number, stage in enumerate(network.output_blocks):
        block = number % (network.config.blocks + 1)
        level = len(network.config.channel_mult) - 1 - number // (network.config.blocks + 1)
        yield from _stage(f"output_blocks.{number}", stage, "up", level, block)


def _stage(name: str, stage: nn.Module, side: Side, level: int, block: int) -> Iterator[Part]:
    for number, layer in enumerate(stage.children()):
        kind: Kind = "attention" if isinstance(layer, AttentionBlock) else "residual"
        yield Part(f"{name}.{number}", "resampling" if _resamples(layer) else kind, side, level, block)


def _resamples(layer: nn.Module) -> bool:
    if isinstance(layer, ResidualBlock):
        return layer.resample.direction != "keep"
    return isinstance(layer, Downsample | Upsample)
