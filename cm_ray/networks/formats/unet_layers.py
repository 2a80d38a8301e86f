"""Kind and position of each layer of a U-Net, from which the names of other projects are computed.

The names here are OpenAI's, which count stages. Those of diffusers and EDM count levels and blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from cm_ray.networks.blocks import AttentionBlock, Downsample, ResidualBlock, Upsample
from cm_ray.networks.model import ModelSpec, unet_of
from cm_ray.networks.unet import UNet

Kind = Literal["residual", "attention", "resampling", "pyramid"]
Side = Literal["down", "middle", "up"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the U-Net that belongs to a level."""

    name: str
    """Prefix of its tensors in our state dicts."""
    kind: Kind
    """"resampling" is a residual block or a convolution that changes the resolution."""
    side: Side
    level: int
    """Level of the layer, 0 for the full resolution; for a resampling layer, the level of its input."""
    block: int
    """Number of the block in its level and side; an attention layer has the number of the block before it."""


def network_of(spec: ModelSpec) -> UNet:
    """Return the network of a specification on the meta device. Raises UserError as `UNet` does."""
    with torch.device("meta"):
        return unet_of(spec)


def layers(network: UNet) -> Iterator[Layer]:
    """Yield all layers that belong to a level, in the order of the forward pass."""
    level = block = 0
    for number, stage in enumerate(network.input_blocks[1:], 1):
        name = f"input_blocks.{number}"
        if _resamples(next(iter(stage.children()))):
            yield Layer(f"{name}.0", "resampling", "down", level, block)
            if str(number) in network.pyramid:
                yield Layer(f"pyramid.{number}", "pyramid", "down", level, block)
            level, block = level + 1, 0
        else:
            yield from _stage(name, stage, "down", level, block)
            block += 1
    for number, layer in enumerate(network.middle_block):
        kind: Kind = "attention" if isinstance(layer, AttentionBlock) else "residual"
        yield Layer(f"middle_block.{number}", kind, "middle", level, number // 2)
    for number, stage in enumerate(network.output_blocks):
        block = number % (network.config.blocks + 1)
        level = len(network.config.channel_mult) - 1 - number // (network.config.blocks + 1)
        yield from _stage(f"output_blocks.{number}", stage, "up", level, block)


def _stage(name: str, stage: nn.Module, side: Side, level: int, block: int) -> Iterator[Layer]:
    for number, layer in enumerate(stage.children()):
        kind: Kind = "attention" if isinstance(layer, AttentionBlock) else "residual"
        yield Layer(f"{name}.{number}", "resampling" if _resamples(layer) else kind, side, level, block)


def _resamples(layer: nn.Module) -> bool:
    if isinstance(layer, ResidualBlock):
        return layer.resample.direction != "keep"
    return isinstance(layer, Downsample | Upsample)
