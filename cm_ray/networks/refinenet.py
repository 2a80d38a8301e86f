"""NCSNv2's RefineNet: residual blocks down to a quarter of the resolution, and refinement back to it.

Lin et al. 2017 (RefineNet), Song & Ermon 2019 and 2020, with instance normalisation++. Modules have the names
of the public PyTorch code, so that its state dicts fit. The network does not see the time: in column ve its
output is divided by sigma (technique 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cm_ray.core.types import Images

_EPS = 1e-5


class RefineNet(nn.Module):
    """Maps images (b, c, h, w) to the score times sigma, of the same shape; h and w are even."""

    def __init__(self, shape: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        n, m = channels, 2 * channels
        self.begin_conv = _convolution(shape[0], n)
        self.normalizer = InstanceNormPlus(n)
        self.end_conv = _convolution(n, shape[0])
        self.res1 = _stage(n, n, down=False)
        self.res2 = _stage(n, m, down=True)
        self.res3 = _stage(m, m, down=True, dilation=2)
        self.res4 = _stage(m, m, down=True, dilation=4)
        self.refine1 = RefineBlock([m], m)
        self.refine2 = RefineBlock([m, m], m)
        self.refine3 = RefineBlock([m, m], n)
        self.refine4 = RefineBlock([n, n], n, last_units=3)

    def forward(self, x: Images, time: Tensor) -> Images:
        """Return the output; time is that of other networks, and is not used."""
        first = self.res1(self.begin_conv(x))
        second = self.res2(first)
        third = self.res3(second)
        refined = self.refine1([self.res4(third)])
        for block, features in ((self.refine2, third), (self.refine3, second), (self.refine4, first)):
            refined = block([features, refined])
        output: Images = self.end_conv(functional.elu(self.normalizer(refined)))
        return output


class InstanceNormPlus(nn.Module):
    """Instance normalisation++: the means of channels, normalised over the channels, are added again.

    Song & Ermon 2019, appendix A.1, without classes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.gamma = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        for parameter in (self.alpha, self.gamma):
            nn.init.normal_(parameter, 1.0, 0.02)

    def forward(self, x: Images) -> Images:
        """Return the normalised features (b, channels, h, w)."""
        means = x.mean((2, 3), keepdim=True)
        spread = x.var((2, 3), keepdim=True, correction=0)
        over = (means - means.mean(1, keepdim=True)) / (means.var(1, keepdim=True) + _EPS).sqrt()
        alpha, gamma, beta = (each[:, None, None] for each in (self.alpha, self.gamma, self.beta))
        return gamma * ((x - means) / (spread + _EPS).sqrt() + alpha * over) + beta


class ResidualBlock(nn.Module):
    """Normalisation, ELU and convolution, twice, beside a shortcut; down: half the resolution, or dilated."""

    def __init__(self, inputs: int, outputs: int, *, down: bool, dilation: int) -> None:
        super().__init__()
        pools = down and dilation == 1
        between = inputs if down else outputs
        self.normalize1 = InstanceNormPlus(inputs)
        self.conv1 = _convolution(inputs, between, dilation=dilation)
        self.normalize2 = InstanceNormPlus(between)
        last = _convolution(between, outputs, dilation=dilation)
        self.conv2 = MeanPooled(last) if pools else last
        self.shortcut: nn.Module | None = None
        if down or inputs != outputs:
            size = 3 if dilation > 1 else 1
            beside = _convolution(inputs, outputs, size=size, dilation=dilation)
            self.shortcut = MeanPooled(beside) if pools else beside

    def forward(self, x: Images) -> Images:
        """Return the block's features."""
        h = self.conv1(functional.elu(self.normalize1(x)))
        h = self.conv2(functional.elu(self.normalize2(h)))
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

    def __init__(self, inputs: list[int], outputs: int, *, last_units: int = 1) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(ConvolutionUnits(each, 2) for each in inputs)
        self.msf = Fusion(inputs, outputs) if len(inputs) > 1 else None
        self.crp = ChainedPooling(outputs)
        self.output_convs = ConvolutionUnits(outputs, last_units)

    def forward(self, features: list[Images]) -> Images:
        """Return features (b, outputs, h, w) of the first one's size."""
        adapted = [unit(each) for unit, each in zip(self.adapt_convs, features, strict=True)]
        fused = adapted[0] if self.msf is None else self.msf(adapted)
        output: Images = self.output_convs(self.crp(fused))
        return output


class ConvolutionUnits(nn.Module):
    """Residual units of two convolutions without bias, each after an ELU."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.units = units
        for unit in range(1, units + 1):
            for number in (1, 2):
                self.add_module(f"{unit}_{number}_conv", _convolution(channels, channels, bias=False))

    def forward(self, x: Images) -> Images:
        """Return features of x's shape."""
        for unit in range(1, self.units + 1):
            h = x
            for number in (1, 2):
                h = self.get_submodule(f"{unit}_{number}_conv")(functional.elu(h))
            x = x + h
        return x


class Fusion(nn.Module):
    """The sum of convolved features, resized to the first one's size."""

    def __init__(self, inputs: list[int], outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_convolution(each, outputs) for each in inputs)

    def forward(self, features: list[Images]) -> Images:
        """Return the sum."""
        size = features[0].shape[2:]
        convolved = [conv(each) for conv, each in zip(self.convs, features, strict=True)]
        resized = [
            functional.interpolate(each, size, mode="bilinear", align_corners=True) for each in convolved
        ]
        return torch.stack(resized).sum(0)


class ChainedPooling(nn.Module):
    """Two stages of pooling by maxima over 5x5 and convolution, whose results are added to the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_convolution(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Images) -> Images:
        """Return features of x's shape."""
        x = path = functional.elu(x)
        for conv in self.convs:
            path = conv(functional.max_pool2d(path, 5, stride=1, padding=2))
            x = x + path
        return x


def _stage(inputs: int, outputs: int, *, down: bool, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(inputs, outputs, down=down, dilation=dilation),
        ResidualBlock(outputs, outputs, down=False, dilation=dilation),
    )


def _convolution(
    inputs: int, outputs: int, *, size: int = 3, dilation: int = 1, bias: bool = True
) -> nn.Conv2d:
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, bias=bias)
