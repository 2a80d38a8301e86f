"""RefineNet of NCSN and NCSNv2: residual blocks that halve the resolution and dilate, and refinement back.

Lin et al. 2017 (RefineNet), Song & Ermon 2019 and 2020, with instance normalisation++. Modules have the names
of the public PyTorch codes, so that their state dicts fit. NCSN's is conditional: the parameters of every
normalisation are rows of an embedding, one for each noise level, and its time is the index of the level.
NCSNv2's does not see the time: in column ve its output is divided by sigma (technique 3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cm_ray.core.types import Images

_EPS = 1e-5


class Stage(NamedTuple):
    """A stage of the encoder, which is two residual blocks."""

    name: str
    width: int
    """Channels, as a multiple of those of the full resolution."""
    down: bool = True
    """True if the first block halves the resolution, or dilates in the place of that."""
    dilation: int = 1
    """Dilation of the convolutions."""


_FIRST, _SECOND = Stage("1", 1, down=False), Stage("2", 2)
_DEEP = (Stage("4", 4, dilation=2), Stage("5", 4, dilation=4))
STAGES: dict[int, tuple[Stage, ...]] = {
    4: (_FIRST, _SECOND, Stage("3", 2, dilation=2), Stage("4", 2, dilation=4)),
    5: (_FIRST, _SECOND, Stage("3", 2), *_DEEP),
    6: (_FIRST, _SECOND, Stage("3", 2), Stage("31", 2), *_DEEP),
}
"""Stages of the encoders: of 32 and 64 pixels, of 96 and 128 pixels (Deeper), of 256 pixels (Deepest)."""


def halvings(stages: int) -> int:
    """Return how often an encoder of so many stages halves the resolution."""
    return sum(stage.down and stage.dilation == 1 for stage in STAGES[stages])


class RefineNet(nn.Module):
    """Maps images (b, c, h, w) to the score, or to the score times sigma, of the same shape.

    levels: noise levels of a conditional network, 0 for an unconditional one. stages: key of `STAGES`.
    """

    def __init__(self, shape: tuple[int, int, int], channels: int, *, levels: int, stages: int) -> None:
        super().__init__()
        self.levels, plan = levels, STAGES[stages]
        widths = [channels * stage.width for stage in plan]
        self.begin_conv = _convolution(shape[0], channels)
        self.normalizer = InstanceNormPlus(channels, levels)
        self.end_conv = _convolution(channels, shape[0])
        self.stages = [f"res{stage.name}" for stage in plan]
        for stage, inputs, width in zip(plan, [channels, *widths], widths, strict=False):
            self.add_module(f"res{stage.name}", _residual_blocks(inputs, width, stage, levels))
        self.refinements = [f"refine{name}" for name in _refinements(stages)]
        self.refine1 = RefineBlock([widths[-1]], widths[-1], levels)
        outputs = [channels, *widths[:-2]]
        pairs = list(zip(widths[:-1], outputs, strict=True))[::-1]
        for name, (width, output) in zip(self.refinements[1:], pairs, strict=True):
            units = 3 if name == self.refinements[-1] else 1
            self.add_module(name, RefineBlock([width, width], output, levels, last_units=units))

    def forward(self, x: Images, time: Tensor) -> Images:
        """Return the output; time: index of the noise level, 0 for the largest, which is rounded.

        An unconditional network does not use the time.
        """
        level = time.round().long().clamp(0, self.levels - 1) if self.levels else None
        h, features = self.begin_conv(x), []
        for name in self.stages:
            for block in self.get_submodule(name).children():
                h = block(h, level)
            features.append(h)
        refined = self.refine1([features.pop()], level)
        for name in self.refinements[1:]:
            refined = self.get_submodule(name)([features.pop(), refined], level)
        output: Images = self.end_conv(functional.elu(self.normalizer(refined, level)))
        return output


class InstanceNormPlus(nn.Module):
    """Instance normalisation++: the means of channels, normalised over the channels, are added again.

    Song & Ermon 2019, appendix A.1. levels: rows of the embedding that has the factors and biases of each
    noise level; 0: they are the same for all.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(levels, 3 * channels) if levels else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight[:, : 2 * channels], 1.0, 0.02)
            nn.init.zeros_(self.embed.weight[:, 2 * channels :])
        else:
            self.alpha = nn.Parameter(torch.empty(channels))
            self.gamma = nn.Parameter(torch.empty(channels))
            self.beta = nn.Parameter(torch.zeros(channels))
            for parameter in (self.alpha, self.gamma):
                nn.init.normal_(parameter, 1.0, 0.02)

    def forward(self, x: Images, level: Tensor | None) -> Images:
        """Return the normalised features (b, channels, h, w); level: index of the noise level (b,)."""
        means = x.mean((2, 3), keepdim=True)
        spread = x.var((2, 3), keepdim=True, correction=0)
        over = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + _EPS).sqrt()
        if self.embed is not None:
            gamma, alpha, beta = self.embed(level)[..., None, None].chunk(3, dim=1)
        else:
            alpha, gamma, beta = (each[:, None, None] for each in (self.alpha, self.gamma, self.beta))
        normalised: Images = gamma * ((x - means) / (spread + _EPS).sqrt() + alpha * over) + beta
        return normalised


class ResidualBlock(nn.Module):
    """Normalisation, ELU and convolution, twice, beside a shortcut; down: half the resolution, or dilated."""

    def __init__(self, inputs: int, outputs: int, levels: int, *, down: bool, dilation: int) -> None:
        super().__init__()
        pools = down and dilation == 1
        between = inputs if down else outputs
        self.normalize1 = InstanceNormPlus(inputs, levels)
        self.conv1 = _convolution(inputs, between, dilation=dilation)
        self.normalize2 = InstanceNormPlus(between, levels)
        last = _convolution(between, outputs, dilation=dilation)
        self.conv2 = MeanPooled(last) if pools else last
        self.shortcut: nn.Module | None = None
        if down or inputs != outputs:
            size = 3 if dilation > 1 else 1
            beside = _convolution(inputs, outputs, size=size, dilation=dilation)
            self.shortcut = MeanPooled(beside) if pools else beside

    def forward(self, x: Images, level: Tensor | None) -> Images:
        """Return the block's features."""
        h = self.conv1(functional.elu(self.normalize1(x, level)))
        h = self.conv2(functional.elu(self.normalize2(h, level)))
        return (x if self.shortcut is None else self.shortcut(x)) + h


class MeanPooled(nn.Module):
    """A convolution, and the means of 2x2 of its pixels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Images) -> Images:
        """Return features of half the resolution."""
        return functional.avg_pool2d(self.conv(x), 2)


class RefineBlock(nn.Module):
    """Fuses features of the encoder with those of a coarser level, at the resolution of the first."""

    def __init__(self, inputs: list[int], outputs: int, levels: int, *, last_units: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ConvolutionUnits(each, 2, levels) for each in inputs)
        self.msf = Fusion(inputs, outputs, levels) if len(inputs) > 1 else None
        self.crp = ChainedPooling(outputs, levels)
        self.output_convs = ConvolutionUnits(outputs, last_units, levels)

    def forward(self, features: list[Images], level: Tensor | None) -> Images:
        """Return features (b, outputs, h, w) of the first one's size."""
        adapted = [unit(each, level) for unit, each in zip(self.adapt_convs, features, strict=True)]
        fused = adapted[0] if self.msf is None else self.msf(adapted, level)
        output: Images = self.output_convs(self.crp(fused, level), level)
        return output


class ConvolutionUnits(nn.Module):
    """Residual units of two convolutions without bias, each after an ELU (and a conditional norm)."""

    def __init__(self, channels: int, units: int, levels: int) -> None:
        super().__init__()
        self.places = [[f"{unit}_{number}" for number in (1, 2)] for unit in range(1, units + 1)]
        self.conditional = levels > 0
        for place in (place for unit in self.places for place in unit):
            if levels:
                self.add_module(f"{place}_norm", InstanceNormPlus(channels, levels))
            self.add_module(f"{place}_conv", _convolution(channels, channels, bias=False))

    def forward(self, x: Images, level: Tensor | None) -> Images:
        """Return features of x's shape."""
        for unit in self.places:
            h = x
            for place in unit:
                if self.conditional:
                    h = self.get_submodule(f"{place}_norm")(h, level)
                h = self.get_submodule(f"{place}_conv")(functional.elu(h))
            x = x + h
        return x


class Fusion(nn.Module):
    """The sum of (normalised and) convolved features, resized to the first one's size."""

    def __init__(self, inputs: list[int], outputs: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_convolution(each, outputs) for each in inputs)
        self.norms = _norms(inputs, levels)

    def forward(self, features: list[Images], level: Tensor | None) -> Images:
        """Return the sum."""
        size = features[0].shape[2:]
        if self.norms is not None:
            features = [norm(each, level) for norm, each in zip(self.norms, features, strict=True)]
        convolved = [conv(each) for conv, each in zip(self.convs, features, strict=True)]
        resized = [
            functional.interpolate(each, size, mode="bilinear", align_corners=True) for each in convolved
        ]
        return torch.stack(resized).sum(0)


class ChainedPooling(nn.Module):
    """Two stages of pooling over 5x5 and convolution, whose results are added to the features.

    NCSNv2 pools by maxima, NCSN by means after a conditional norm.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_convolution(channels, channels, bias=False) for _ in range(2))
        self.norms = _norms([channels] * 2, levels)

    def forward(self, x: Images, level: Tensor | None) -> Images:
        """Return features of x's shape."""
        x = path = functional.elu(x)
        for index, conv in enumerate(self.convs):
            if self.norms is None:
                path = conv(functional.max_pool2d(path, 5, stride=1, padding=2))
            else:
                path = conv(functional.avg_pool2d(self.norms[index](path, level), 5, stride=1, padding=2))
            x = x + path
        return x


def _norms(channels: list[int], levels: int) -> nn.ModuleList | None:
    """Return conditional norms, which an unconditional decoder does not have."""
    return nn.ModuleList(InstanceNormPlus(each, levels) for each in channels) if levels else None


def _refinements(stages: int) -> list[str]:
    """Return the names of the blocks of the decoder, from the coarsest; "31" is at the encoder's "31"."""
    names = [str(number) for number in range(1, min(stages, 5) + 1)]
    return [*names[:2], "31", *names[2:]] if stages == 6 else names


def _residual_blocks(inputs: int, outputs: int, stage: Stage, levels: int) -> nn.ModuleList:
    dilation = stage.dilation
    return nn.ModuleList(
        [
            ResidualBlock(inputs, outputs, levels, down=stage.down, dilation=dilation),
            ResidualBlock(outputs, outputs, levels, down=False, dilation=dilation),
        ]
    )


def _convolution(
    inputs: int, outputs: int, *, size: int = 3, dilation: int = 1, bias: bool = True
) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, bias=bias)
