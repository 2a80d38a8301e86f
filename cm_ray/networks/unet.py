"""The U-Nets ADM, DDPM++ and NCSN++: one class that is built from the properties of a family."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cm_ray.errors import setting
from cm_ray.networks.architectures import GroupNormUNet
from cm_ray.networks.blocks import (
    AttentionBlock,
    Downsample,
    FourierFeatures,
    LabelEmbedding,
    LabelFeatures,
    PyramidConvolution,
    ResidualBlock,
    SinusoidalFeatures,
    Upsample,
    check_inputs,
    scaled,
    sinusoidal_embedding,
    zeroed,
)
from cm_ray.networks.families import family_of
from cm_ray.networks.levels import check_levels, refuse_unless
from cm_ray.networks.normalisation import GroupNorm

_SECOND, _SCALE, AUGMENT = "second_embed.", "scale_embed.", "augment_embed."
"""Prefixes of the names of weights for inputs that not every network has."""
_SCALE_TIME = 100.0
"""Factor of the guidance scale under the sines and cosines that its embedding sees."""


class Stage(nn.Sequential):
    """A sequence of layers, some of which take the time embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Apply all layers to x (b, c, h, w); embedding is (b, e)."""
        for layer in self:
            takes_embedding = isinstance(layer, ResidualBlock | AttentionBlock)
            x = layer(x, embedding) if takes_embedding else layer(x)
        return x


class UNet(nn.Module):
    """F_theta(x, time, labels): a U-Net with residual blocks and self-attention, of the settings' family.

    shape: (c, h, w) of the images; h and w are divisible by 2 once for each level below the first.
    classes: number of classes, 0 for an unconditional network. two_times, takes_scale: the network takes a
    second time, or a guidance scale, the effect of which is zero at first, so that the weights of a network
    without that input are a start. augment: numbers that describe the augmentation of an image, of which
    zeros have no effect; 0: it takes none.
    Raises UserError, with the name of the setting, when the settings do not fit the images.
    Dhariwal & Nichol 2021; Song et al. 2021, appendix H; Karras et al. 2022, appendix F.4.
    """

    def __init__(
        self,
        config: GroupNormUNet,
        shape: tuple[int, int, int],
        classes: int,
        *,
        two_times: bool = False,
        takes_scale: bool = False,
        augment: int = 0,
    ) -> None:
        super().__init__()
        check_fits(config, shape)
        self.classes, self.config = classes, config
        self.family = family_of(config)
        features, embedding = self.family.time_width * config.channels, 4 * config.channels
        self.feature_channels, self.time_features = features, self._time_features(features)
        self.time_embed = nn.Sequential(
            nn.Linear(features, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        if classes:
            kind, width = (
                (LabelFeatures, features) if self.family.labels_first else (LabelEmbedding, embedding)
            )
            self.label_emb = kind(classes, width, null=config.label_dropout > 0)
        self.pyramid = nn.ModuleDict()
        self.input_blocks, skips, channels, size = self._contracting(shape)
        self.middle_block = Stage(
            self._residual(channels, channels), self._attention(channels), self._residual(channels, channels)
        )
        self.output_blocks, channels = self._expanding(skips, channels, size)
        self.out = nn.Sequential(
            GroupNorm(config.norm_groups, channels, self.family.eps),
            nn.SiLU(),
            zeroed(nn.Conv2d(channels, shape[0], 3, padding=1)),
        )
        if self.family.xavier:
            _initialise_as_song(self)
        self.second_embed = _added_embedding(features, embedding) if two_times else None  # drawn last
        self.scale_embed = _added_embedding(features, embedding) if takes_scale else None
        self.augment_embed = self._augmentation(augment, features) if augment else None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        labels: Tensor | None = None,
        second: Tensor | None = None,
        scale: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """Map images (b, c, h, w), network times, labels, second times and scales, all (b,), to (b, c, h, w).

        The label -1 is the null class, if the settings have a label dropout. augment: numbers that describe
        the augmentation of the images (b, n); zeros if they are not given. Raises ValueError as
        `check_inputs` does, and on an augmentation that the network does not know.
        """
        added = {"second": (second, self.second_embed), "scale": (scale, self.scale_embed)}
        check_inputs(labels, self.classes, **added)
        if augment is not None and self.augment_embed is None:
            raise ValueError("the network does not know augmentations")
        embedding = self._embedding(time, labels, augment)
        if self.second_embed is not None:
            embedding = embedding + self.second_embed(self.time_features(second))
        if self.scale_embed is not None:
            embedding = embedding + self.scale_embed(self._scale_features(scale))
        h, skips = x.contiguous(memory_format=torch.channels_last), []
        coarse = h
        for index, stage in enumerate(self.input_blocks):
            h = stage(h, embedding)
            if str(index) in self.pyramid:
                h = coarse = scaled(h + self.pyramid[str(index)](coarse), self.family.skip_scale)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        norm, _, convolution = self.out  # the norm applies SiLU
        return convolution(norm(h, silu=True))

    def _embedding(self, time: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        """Return the embedding of times, labels and augmentations for residual blocks, (b, 4 channels)."""
        features = self.time_features(time)
        if augment is not None and self.augment_embed is not None:
            features = features + self.augment_embed(augment)
        if labels is None:
            return self.time_embed(features)
        if self.family.labels_first:
            return self.time_embed(features + self.label_emb(labels))
        return self.time_embed(features) + self.label_emb(labels)

    def _scale_features(self, scale: Tensor | None) -> Tensor:
        assert scale is not None
        return sinusoidal_embedding(_SCALE_TIME * scale, self.feature_channels)

    def _augmentation(self, values: int, features: int) -> nn.Linear:
        """Return the map of the numbers of an augmentation, without a bias, so that zeros have no effect.

        Its weights start as in EDM's networks: at zero in ADM, as all others of the family else.
        """
        layer = nn.Linear(values, features, bias=False)
        if self.family.xavier:
            nn.init.xavier_uniform_(layer.weight)
        else:
            nn.init.zeros_(layer.weight)
        return layer

    def _time_features(self, channels: int) -> nn.Module:
        if self.family.time == "fourier":
            return FourierFeatures(channels, self.config.fourier_scale)
        return SinusoidalFeatures(channels, sine_first=self.family.time == "sin-cos")

    def _residual(self, channels: int, out_channels: int, direction: str = "keep") -> ResidualBlock:
        return ResidualBlock(channels, out_channels, self.config, self.family, direction)

    def _attention(self, channels: int) -> AttentionBlock:
        return AttentionBlock(channels, self.config, self.family)

    def _contracting(self, shape: tuple[int, int, int]) -> tuple[nn.ModuleList, list[int], int, int]:
        """Return the stages of the encoder, their widths, and the width and size of the last one."""
        config, size, coarse = self.config, min(shape[1:]), shape[0]
        channels = config.channels * (config.channel_mult[0] if self.family.first_mult else 1)
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
                if self.family.pyramid:
                    joins = PyramidConvolution(coarse, channels, self.family.filter)
                    self.pyramid[str(len(stages) - 1)], coarse = joins, channels
        return nn.ModuleList(stages), widths, channels, size

    def _expanding(self, skips: list[int], channels: int, size: int) -> tuple[nn.ModuleList, int]:
        """Return the stages of the decoder and the width of the last one."""
        config, stages = self.config, []
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for block in range(config.blocks + 1):
                layers: list[nn.Module] = [self._residual(channels + skips.pop(), mult * config.channels)]
                channels = mult * config.channels
                last = block == config.blocks
                if size in config.attention_resolutions and (last or not self.family.attention_last):
                    layers.append(self._attention(channels))
                if level and last:
                    layers.append(self._resampling(channels, "up"))
                    size *= 2
                stages.append(Stage(*layers))
        return nn.ModuleList(stages), channels

    def _resampling(self, channels: int, direction: str) -> nn.Module:
        if self.config.resample_blocks:
            return self._residual(channels, channels, direction)
        return Downsample(channels) if direction == "down" else Upsample(channels)


def _added_embedding(features: int, embedding: int) -> nn.Sequential:
    """Return the embedding of a second time or of a scale, whose last layer is zero."""
    return nn.Sequential(nn.Linear(features, embedding), nn.SiLU(), zeroed(nn.Linear(embedding, embedding)))


def starting_weights(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a network as those of a new one, which may have more inputs, to start from.

    The embeddings of a second time and of a scale, which have no effect at first, and that of augmentations,
    of which zeros have none, are the new network's where the weights have none. Where the new network knows
    no augmentation, their embedding is left out. Other weights are returned as they are.
    """
    new = network.state_dict()
    knows = any(name.startswith(AUGMENT) for name in new)
    taken = {name: value for name, value in weights.items() if knows or not name.startswith(AUGMENT)}
    for prefix in (_SECOND, _SCALE, AUGMENT):
        if not any(name.startswith(prefix) for name in weights):
            taken |= {name: value for name, value in new.items() if name.startswith(prefix)}
    return taken


def _initialise_as_song(network: UNet) -> None:
    """Initialise weights with Glorot's uniform distribution, biases with 0, last layers of blocks near 0.

    Glorot & Bengio 2010; Song et al. 2021, in the implementation of Karras et al. 2022.
    """
    factors: dict[nn.Module, float] = {network.out[-1]: 1e-5}
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            factors[module.out_layers[-1]] = 1e-5
        if isinstance(module, AttentionBlock):
            factors |= {module.qkv: math.sqrt(0.2), module.proj_out: 1e-5}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=factors.get(module, 1.0))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_fits(config: GroupNormUNet, shape: tuple[int, int, int]) -> None:
    """Raise UserError, with the name of the setting, when the settings do not fit the images."""
    check_levels(config, shape)
    check_widths(config)


def check_widths(config: GroupNormUNet) -> None:
    """Raise UserError, with the name of the setting, when groups or heads do not divide the channels."""
    widths = [config.channels * mult for mult in config.channel_mult]
    if not family_of(config).first_mult:
        widths.insert(0, config.channels)
    for name, size in (("norm_groups", config.norm_groups), ("head_channels", config.head_channels)):
        divides = size == 0 or all(width % size == 0 for width in widths)
        refuse_unless(divides, f"{setting(f'network.{name}')} {size} does not divide the channels {widths}")
