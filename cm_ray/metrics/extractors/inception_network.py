"""The Inception-v3 network that defines FID (Szegedy et al. 2015; Heusel et al. 2017), as a plain module.

This is TensorFlow's network of 2015-12-05. It differs from torchvision's in three ways: average pooling at a
border counts existing pixels only, the last block uses max pooling where the paper uses average pooling, and
there are 1,008 classes. Parameters have the names of the published file; see `published_weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM, CLASSES, SIZE = 2048, 1008, 299


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """Name, output channels, kernel and stride of a convolution. With stride 2 there is no padding."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation and ReLU: (b, c, h, w) to (b, channels, h', w')."""

    def __init__(self, channels: int, spec: ConvSpec) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in spec.kernel) if spec.padded and spec.stride == 1 else (0, 0)
        self.conv = nn.Conv2d(channels, spec.channels, spec.kernel, spec.stride, padding, bias=False)  # type: ignore[arg-type]
        self.bn = nn.BatchNorm2d(spec.channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, channels, h', w')."""
        return F.relu(self.bn(self.conv(x)))


Branch = Sequence[ConvSpec | tuple[ConvSpec, ConvSpec]]
"""Convolutions in sequence. Those of a pair get the same input; their outputs are concatenated."""


class Block(nn.Module):
    """Parallel branches and one pooling branch, concatenated along the channels.

    pool: `average` or `maximum`, 3x3 with stride 1, followed by a 1x1 convolution to `pooled` channels; or
    `halve`, 3x3 max pooling with stride 2 and no convolution.
    """

    def __init__(self, channels: int, branches: Sequence[Branch], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.paths: list[list[list[str]]] = []
        self.channels = pooled or channels
        for branch in branches:
            before, path = channels, []
            for stage in branch:
                specs = (stage,) if isinstance(stage, ConvSpec) else stage
                for spec in specs:
                    self.add_module(spec.name, Convolution(before, spec))
                before = sum(spec.channels for spec in specs)
                path.append([spec.name for spec in specs])
            self.paths.append(path)
            self.channels += before
        if pooled:
            self.branch_pool = Convolution(channels, ConvSpec("branch_pool", pooled))
        self.pool, self.pooled = _POOLS[pool], pooled

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, channels, h', w')."""
        outputs = []
        for path in self.paths:
            y = x
            for names in path:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            outputs.append(y)
        y = self.pool(x)
        return torch.cat([*outputs, self.branch_pool(y) if self.pooled else y], 1)


_POOLS = {
    "average": partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False),
    "maximum": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
    "halve": partial(F.max_pool2d, kernel_size=3, stride=2),
}
_WIDE, _TALL, _SQUARE = (1, 7), (7, 1), (3, 3)


def _block_35(channels: int, pooled: int) -> Block:
    """Return a block for feature maps of 35x35."""
    fives = [ConvSpec("branch5x5_1", 48), ConvSpec("branch5x5_2", 64, (5, 5))]
    threes = [
        ConvSpec("branch3x3dbl_1", 64),
        ConvSpec("branch3x3dbl_2", 96, _SQUARE),
        ConvSpec("branch3x3dbl_3", 96, _SQUARE),
    ]
    return Block(channels, [[ConvSpec("branch1x1", 64)], fives, threes], "average", pooled)


def _to_17(channels: int) -> Block:
    """Return a block from feature maps of 35x35 to 17x17."""
    threes = [
        ConvSpec("branch3x3dbl_1", 64),
        ConvSpec("branch3x3dbl_2", 96, _SQUARE),
        ConvSpec("branch3x3dbl_3", 96, _SQUARE, stride=2),
    ]
    return Block(channels, [[ConvSpec("branch3x3", 384, _SQUARE, stride=2)], threes], "halve")


def _block_17(channels: int, inner: int) -> Block:
    """Return a block for feature maps of 17x17."""
    once = [
        ConvSpec("branch7x7_1", inner),
        ConvSpec("branch7x7_2", inner, _WIDE),
        ConvSpec("branch7x7_3", 192, _TALL),
    ]
    twice = [
        ConvSpec("branch7x7dbl_1", inner),
        ConvSpec("branch7x7dbl_2", inner, _TALL),
        ConvSpec("branch7x7dbl_3", inner, _WIDE),
        ConvSpec("branch7x7dbl_4", inner, _TALL),
        ConvSpec("branch7x7dbl_5", 192, _WIDE),
    ]
    return Block(channels, [[ConvSpec("branch1x1", 192)], once, twice], "average", 192)


def _to_8(channels: int) -> Block:
    """Return a block from feature maps of 17x17 to 8x8."""
    threes = [ConvSpec("branch3x3_1", 192), ConvSpec("branch3x3_2", 320, _SQUARE, stride=2)]
    sevens = [
        ConvSpec("branch7x7x3_1", 192),
        ConvSpec("branch7x7x3_2", 192, _WIDE),
        ConvSpec("branch7x7x3_3", 192, _TALL),
        ConvSpec("branch7x7x3_4", 192, _SQUARE, stride=2),
    ]
    return Block(channels, [threes, sevens], "halve")


def _block_8(channels: int, pool: str) -> Block:
    """Return a block for feature maps of 8x8, whose branches fork."""
    fork = [ConvSpec(f"branch3x3_2{a}", 384, k) for a, k in (("a", (1, 3)), ("b", (3, 1)))]
    fork_twice = [ConvSpec(f"branch3x3dbl_3{a}", 384, k) for a, k in (("a", (1, 3)), ("b", (3, 1)))]
    threes: Branch = [ConvSpec("branch3x3_1", 384), (fork[0], fork[1])]
    twice: Branch = [
        ConvSpec("branch3x3dbl_1", 448),
        ConvSpec("branch3x3dbl_2", 384, _SQUARE),
        (fork_twice[0], fork_twice[1]),
    ]
    return Block(channels, [[ConvSpec("branch1x1", 320)], threes, twice], pool, 192)


class FIDInception(nn.Module):
    """Map images (b, 3, 299, 299) in [-1, 1) to features (b, 2048). `fc` is the classifier (1008, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, ConvSpec("1a", 32, _SQUARE, stride=2))
        self.Conv2d_2a_3x3 = Convolution(32, ConvSpec("2a", 32, _SQUARE, padded=False))
        self.Conv2d_2b_3x3 = Convolution(32, ConvSpec("2b", 64, _SQUARE))
        self.Conv2d_3b_1x1 = Convolution(64, ConvSpec("3b", 80))
        self.Conv2d_4a_3x3 = Convolution(80, ConvSpec("4a", 192, _SQUARE, padded=False))
        self.Mixed_5b = _block_35(192, pooled=32)
        self.Mixed_5c = _block_35(256, pooled=64)
        self.Mixed_5d = _block_35(288, pooled=64)
        self.Mixed_6a = _to_17(288)
        self.Mixed_6b = _block_17(768, inner=128)
        self.Mixed_6c = _block_17(768, inner=160)
        self.Mixed_6d = _block_17(768, inner=160)
        self.Mixed_6e = _block_17(768, inner=192)
        self.Mixed_7a = _to_8(768)
        self.Mixed_7b = _block_8(1280, "average")
        self.Mixed_7c = _block_8(2048, "maximum")
        self.fc = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (b, 2048): the mean over the last feature map, before the classifier."""
        halve = _POOLS["halve"]
        x = halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def build_inception() -> FIDInception:
    """Return the network for inference, with uninitialised weights, which saves time."""
    with torch.device("meta"):
        network = FIDInception()
    return network.to_empty(device="cpu").eval().requires_grad_(False)
