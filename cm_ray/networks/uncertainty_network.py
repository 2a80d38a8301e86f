"""The learned uncertainty u(t) of a loss, as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cm_ray.core.types import Times
from cm_ray.networks.magnitude import MPConv, MPFourier

_LEAST_TIME = 1e-4
"""Times below it have the uncertainty of this time: that of a second time of 0 is not infinite."""


class UncertaintyNetwork(nn.Module):
    """u(t): a magnitude-preserving linear layer of Fourier features of ln(t)/4.  Karras et al. 2024, Eq. 21.

    Its input is the same for every column of the network.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fourier, self.linear = MPFourier(channels), MPConv(channels, 1)

    def forward(self, t: Times) -> Tensor:
        """Map noise levels (b,) to u (b,)."""
        u: Tensor = self.linear(self.fourier(t.clamp(min=_LEAST_TIME).log() / 4))
        return u[:, 0]

    @torch.no_grad()
    def before_step(self) -> None:
        """Normalise the weights, as EDM2's network does."""
        self.linear.renormalise()
