"""Consistency training as a plain PyTorch program: what the engine's step is measured against.

Written for this comparison, in the manner of OpenAI's code for consistency models and of most programs built
on it: images in PyTorch's own layout (NCHW), attention by two einsums around a softmax in float32, group
normalisation in float32, torch's RAdam as it comes, and a loop over the tensors for the target and for every
average. Nothing in it is there to make it slow. Parameters have the engine's names, which are OpenAI's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class Norm(nn.GroupNorm):
    """Group normalisation in float32, whatever comes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (b, c, h, w) or (b, c, n)."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).type(x.dtype)


class Block(nn.Module):
    """A residual block of ADM: two convolutions, the second modulated by scale and shift."""

    def __init__(self, channels: int, out: int, width: int, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(Norm(32, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * out))
        self.out_layers = nn.Sequential(
            Norm(32, out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (b, c, h, w) and the embedding (b, e) to (b, out, h', w')."""
        h = self.in_layers[1](self.in_layers[0](x))
        h, x = self.changed(h), self.changed(x)
        h = self.in_layers[2](h)
        scale, shift = self.emb_layers(embedding)[..., None, None].chunk(2, dim=1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        for layer in self.out_layers[1:]:
            h = layer(h)
        return self.skip_connection(x) + h

    def changed(self, x: Tensor) -> Tensor:
        """Halve or double the resolution, or leave it."""
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        if self.resample == "up":
            return functional.interpolate(x, scale_factor=2, mode="nearest")
        return x


class Attention(nn.Module):
    """Attention of one head over all pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        b, c, *size = x.shape
        x = x.reshape(b, c, -1)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=1)
        scale = 1 / math.sqrt(math.sqrt(c))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        a = torch.einsum("bts,bcs->bct", weight, v)
        return (x + self.proj_out(a)).reshape(b, c, *size)


class Layers(nn.Sequential):
    """Layers of which blocks and attention take the embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        """Map (b, c, h, w) through all layers."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, Block | Attention) else layer(x)
        return x


class PlainUNet(nn.Module):
    """ADM's U-Net with one head, scale and shift, resampling in residual blocks; square images, no classes.

    Dhariwal & Nichol 2021. size: pixels per side; attention: at these sizes.
    """

    def __init__(
        self,
        image_channels: int,
        size: int,
        channels: int,
        mult: Sequence[int],
        blocks: int,
        attention: Sequence[int],
    ) -> None:
        super().__init__()
        self.channels, width = channels, 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        now = mult[0] * channels
        self.input_blocks = nn.ModuleList([Layers(nn.Conv2d(image_channels, now, 3, padding=1))])
        widths = [now]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                layers: list[nn.Module] = [Block(now, factor * channels, width)]
                now = factor * channels
                if size in attention:
                    layers.append(Attention(now))
                self.input_blocks.append(Layers(*layers))
                widths.append(now)
            if level < len(mult) - 1:
                self.input_blocks.append(Layers(Block(now, now, width, "down")))
                widths.append(now)
                size //= 2
        self.middle_block = Layers(Block(now, now, width), Attention(now), Block(now, now, width))
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(mult))):
            for block in range(blocks + 1):
                layers = [Block(now + widths.pop(), factor * channels, width)]
                now = factor * channels
                if size in attention:
                    layers.append(Attention(now))
                if level and block == blocks:
                    layers.append(Block(now, now, width, "up"))
                    size *= 2
                self.output_blocks.append(Layers(*layers))
        self.out = nn.Sequential(Norm(32, now), nn.SiLU(), nn.Conv2d(now, image_channels, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map images (b, c, h, w) and network times (b,) to (b, c, h, w)."""
        half = self.channels // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=x.device) / half)
        angles = time[:, None].float() * frequencies
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        skips, h = [], x
        for layers in self.input_blocks:
            h = layers(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for layers in self.output_blocks:
            h = layers(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.out(h)


def consistency(network: nn.Module, x: Tensor, t: Tensor, sigma: float = 0.5, t_min: float = 0.002) -> Tensor:
    """Return f(x, t).  Song et al. 2023, Eq. 5 and appendix C, as in OpenAI's code."""
    t = t[:, None, None, None]
    skip = sigma**2 / ((t - t_min) ** 2 + sigma**2)
    out = (t - t_min) * sigma / (t**2 + sigma**2) ** 0.5
    scaled = x / (t**2 + sigma**2) ** 0.5
    return skip * x + out * network(scaled, 1000 * 0.25 * t.flatten().log()).float()


@dataclass(frozen=True)
class Draw:
    """The random numbers of a step: standard normal images, and the times t > s of every sample."""

    noise: Tensor
    t: Tensor
    s: Tensor


class PlainTraining:
    """Song et al. 2023, Algorithm 3, with squared l2, RAdam, a target network and averages."""

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        decays: Iterable[float],
        dtype: torch.dtype | None = None,
    ) -> None:
        self.student, self.dtype = network.train(), dtype
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.decays = tuple(decays)
        self.averages = [[p.detach().clone() for p in network.parameters()] for _ in self.decays]
        self.optimizer = torch.optim.RAdam(network.parameters(), lr=learning_rate)

    def one_step(self, images: Tensor, draw: Draw, target_decay: float) -> Tensor:
        """Take a step on images in [-1, 1] (b, c, h, w); return its loss, a scalar."""
        noise, t, s = draw.noise, draw.t, draw.s
        enabled = self.dtype is not None
        with torch.autocast(images.device.type, self.dtype, enabled=enabled):
            answer = consistency(self.student, images + t[:, None, None, None] * noise, t)
        with torch.no_grad(), torch.autocast(images.device.type, self.dtype, enabled=enabled):
            aim = consistency(self.target, images + s[:, None, None, None] * noise, s)
        loss = ((answer - aim) ** 2).mean(dim=(1, 2, 3)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        update(self.target.parameters(), self.student.parameters(), target_decay)
        for average, decay in zip(self.averages, self.decays, strict=True):
            update(average, self.student.parameters(), decay)
        return loss.detach()


@torch.no_grad()
def update(average: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """Move an average of weights towards the current ones, tensor by tensor."""
    for old, new in zip(average, current, strict=True):
        old.mul_(decay).add_(new.detach(), alpha=1 - decay)
