"""Layers that preserve the magnitudes of activations, weights and updates.  Karras et al. 2024 (EDM2).

The magnitude of a tensor is its root mean square. For inputs of magnitude 1, whose elements are independent,
each layer returns outputs of magnitude 1 in expectation. Equations are those of the paper's appendix B.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cm_ray.networks.blocks import label_rows

_EPS = 1e-4
"""Added to magnitudes that are divided by, as in the paper."""
_SILU = 0.596
"""Root mean square of SiLU of standard normal numbers."""


def unit(x: Tensor, *dims: int) -> Tensor:
    """Return x over its magnitude along dimensions, of x's shape and type.

    The magnitude is computed in float32, or float64 of float64. With the channels as `dims` this is the
    paper's pixel norm.
    """
    accurate = torch.float64 if x.dtype == torch.float64 else torch.float32
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=accurate)
    count = 1
    for dim in dims:  # a generator would break the graph of torch.compile
        count *= x.shape[dim]
    return x / (_EPS + norm / math.sqrt(count)).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """Return SiLU(x) over its magnitude for standard normal x.  Eq. 81."""
    return functional.silu(x) / _SILU


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return (1 - share) a + share b over the magnitude of this sum of independent tensors.  Eq. 88."""
    size = math.hypot(1 - share, share)
    return ((1 - share) / size) * a + (share / size) * b


def mp_cat(a: Tensor, b: Tensor, share: float = 0.5) -> Tensor:
    """Return the channels of a and of b, (b, c + c', h, w).  Eq. 103.

    The magnitude of the whole is 1, and the contributions of a and b to what follows are as 1 - share to
    share, whatever their numbers of channels are.
    """
    channels, others = a.shape[1], b.shape[1]
    size = math.sqrt((channels + others) / ((1 - share) ** 2 + share**2))
    factors = size * (1 - share) / math.sqrt(channels), size * share / math.sqrt(others)
    return torch.cat([factors[0] * a, factors[1] * b], dim=1)


class MPFourier(nn.Module):
    """Maps times to sqrt(2) cos(2 pi (f t + p)) with random frequencies f and phases p.  Eq. 75.

    scale: standard deviation of the frequencies. They are saved with the weights, times 2 pi.
    """

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        freqs, phases = 2 * math.pi * scale * torch.randn(channels), 2 * math.pi * torch.rand(channels)
        self.freqs = nn.Parameter(freqs, requires_grad=False)
        self.phases = nn.Parameter(phases, requires_grad=False)

    def forward(self, time: Tensor) -> Tensor:
        """Map times (b,) to (b, channels) in float32, or float64 of float64."""
        exact = time if time.dtype == torch.float64 else time.float()
        return math.sqrt(2) * torch.cos(exact[:, None] * self.freqs + self.phases)


class MPConv(nn.Module):
    """A convolution, or a linear layer, without bias, whose weights have magnitude 1.  Eqs. 47 and 66.

    Every output channel's weights are divided by their magnitude and by the square root of their number.
    kernel: pixels per side, which is odd; 0 for a linear layer.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        sides = (kernel, kernel) if kernel else ()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *sides))

    def scaled(self, gain: Tensor | float = 1.0) -> Tensor:
        """Return the weights that are used, of the parameter's shape; gain: a factor."""
        return _each_output(self.weight) * (gain / math.sqrt(self.weight[0].numel()))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Map (b, inputs, h, w) to (b, outputs, h, w), or (b, inputs) to (b, outputs)."""
        weight = self.scaled(gain)
        if weight.ndim == 2:
            return functional.linear(x, weight)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)

    @torch.no_grad()
    def renormalise(self) -> None:
        """Give the weights magnitude 1: forced weight normalisation, without effect on the outputs.  Eq. 66.

        Adam's steps are as large for any magnitude, so that weights that grow are learned ever more slowly.
        """
        self.weight.copy_(_each_output(self.weight))


class MPLabels(MPConv):
    """A linear layer of labels as one-hot vectors of magnitude 1; null: the zero vector is the label -1."""

    def __init__(self, classes: int, outputs: int, *, null: bool) -> None:
        super().__init__(classes, outputs)
        self.null = null

    def forward(self, labels: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Map labels (b,) to (b, outputs)."""
        table = self.scaled(gain) * math.sqrt(self.weight.shape[1])
        return label_rows(table.t(), labels, null=self.null)


class MPGained(MPConv):
    """A linear layer with a learned gain, which is 0 at first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Map (b, inputs) to (b, outputs)."""
        return super().forward(x, gain * self.gain)


def _each_output(weight: Tensor) -> Tensor:
    return unit(weight, *range(1, weight.ndim))


def renormalise(network: nn.Module) -> None:
    """Give the weights of all magnitude-preserving layers of a network magnitude 1."""
    for layer in network.modules():
        if isinstance(layer, MPConv):
            layer.renormalise()
