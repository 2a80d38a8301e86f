"""The U-Net of Dhariwal & Nichol 2021 (ADM), from 8x8 digits to 256x256 bedrooms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cm_ray.config import NetworkConfig
from cm_ray.errors import UserError
from cm_ray.networks.blocks import (
    AttentionBlock,
    Downsample,
    ResidualBlock,
    Upsample,
    sinusoidal_embedding,
    zeroed,
)


class Stage(nn.Sequential):
    """A sequence of layers of which some take the time embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Map (b, c, h, w) through all layers."""
        for layer in self:
            takes_embedding = isinstance(layer, ResidualBlock | AttentionBlock)
            x = layer(x, embedding) if takes_embedding else layer(x)
        return x


class UNet(nn.Module):
    """F_theta(x, time, labels): a U-Net with residual blocks and self-attention.

    shape: (c, h, w) of the images; h = w, divisible by 2 per level below the first.
    classes: number of classes, 0 for an unconditional network.
    Raises UserError, naming the setting, when the settings do not fit the images.
    """

    def __init__(self, config: NetworkConfig, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        check_fits(config, shape)
        self.classes = classes
        self.config = config
        base = config.channels
        embedding = 4 * base
        self.time_embed = nn.Sequential(
            nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        if classes:
            self.label_emb = nn.Embedding(classes, embedding)
        self.input_blocks, skips, channels, size = self._contracting(shape)
        self.middle_block = Stage(
            self._residual(channels, channels), self._attention(channels), self._residual(channels, channels)
        )
        self.output_blocks, channels = self._expanding(skips, channels, size)
        self.out = nn.Sequential(
            nn.GroupNorm(config.norm_groups, channels),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, shape[0], 3, padding=1)),
        )

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (b, c, h, w), network times (b,) and labels (b,) to (b, c, h, w).

        Raises ValueError when labels are missing or not wanted.
        """
        if (labels is None) != (self.classes == 0):
            raise ValueError("a conditional network needs labels, and an unconditional one takes none")
        embedding = self.time_embed(sinusoidal_embedding(time, self.config.channels))
        if labels is not None:
            embedding = embedding + self.label_emb(labels)
        h, skips = x.contiguous(memory_format=torch.channels_last), []
        for stage in self.input_blocks:
            h = stage(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.out(h)

    def _residual(self, channels: int, out_channels: int, direction: str = "keep") -> ResidualBlock:
        config = self.config
        return ResidualBlock(
            channels,
            out_channels,
            embedding=4 * config.channels,
            groups=config.norm_groups,
            dropout=config.dropout,
            scale_shift=config.scale_shift,
            direction=direction,
            recompute=config.gradient_checkpointing,
        )

    def _attention(self, channels: int) -> AttentionBlock:
        config = self.config
        return AttentionBlock(channels, head_channels=config.head_channels, groups=config.norm_groups)

    def _contracting(self, shape: tuple[int, int, int]) -> tuple[nn.ModuleList, list[int], int, int]:
        """Return the stages on the way down, their widths, and the width and size at the bottom."""
        config, size = self.config, shape[1]
        channels = config.channels * config.channel_mult[0]
        stages = [Stage(nn.Conv2d(shape[0], channels, 3, padding=1))]
        widths = [channels]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.blocks):
                layers: list[nn.Module] = [self._residual(channels, mult * config.channels)]
                channels = mult * config.channels
                if size in config.attention_resolutions:
                    layers.append(self._attention(channels))
                stages.append(Stage(*layers))
                widths.append(channels)
            if level < len(config.channel_mult) - 1:
                size //= 2
                stages.append(Stage(self._resampling(channels, "down")))
                widths.append(channels)
        return nn.ModuleList(stages), widths, channels, size

    def _expanding(self, skips: list[int], channels: int, size: int) -> tuple[nn.ModuleList, int]:
        """Return the stages on the way up and the width at the top."""
        config, stages = self.config, []
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for block in range(config.blocks + 1):
                layers: list[nn.Module] = [self._residual(channels + skips.pop(), mult * config.channels)]
                channels = mult * config.channels
                if size in config.attention_resolutions:
                    layers.append(self._attention(channels))
                if level and block == config.blocks:
                    layers.append(self._resampling(channels, "up"))
                    size *= 2
                stages.append(Stage(*layers))
        return nn.ModuleList(stages), channels

    def _resampling(self, channels: int, direction: str) -> nn.Module:
        if self.config.resample_blocks:
            return self._residual(channels, channels, direction)
        return Downsample(channels) if direction == "down" else Upsample(channels)


def check_fits(config: NetworkConfig, shape: tuple[int, int, int]) -> None:
    """Raise UserError, naming the setting, when a U-Net of these settings cannot take these images."""
    _, height, width = shape
    halvings = 2 ** (len(config.channel_mult) - 1)
    widths = [config.channels * mult for mult in config.channel_mult]
    rules: list[tuple[Any, str]] = [
        (config.channel_mult, "--network.channel-mult needs at least one level"),
        (height == width, f"the images are {height}x{width}; square ones are needed, see --data.size"),
        (
            height % halvings == 0,
            f"images of {height} pixels cannot be halved {len(config.channel_mult) - 1} times; "
            "give fewer levels in --network.channel-mult or another --data.size",
        ),
        (
            all(width % config.norm_groups == 0 for width in widths),
            f"--network.norm-groups {config.norm_groups} does not divide the channels {widths}",
        ),
        (
            all(width % config.head_channels == 0 for width in widths),
            f"--network.head-channels {config.head_channels} does not divide the channels {widths}",
        ),
    ]
    for holds, sentence in rules:
        if not holds:
            raise UserError(f"The network does not fit: {sentence}.")
