"""Any network with a preconditioning: a consistency function f, or a denoiser D."""

from __future__ import annotations

from torch import Tensor, nn

from cm_ray.core.diffusion import BoundaryCondition, Diffusion
from cm_ray.core.precondition import EDM, Column, precondition
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Images, Labels, Times


class Preconditioned(nn.Module):
    """Maps noisy images and times to clean images, by a network F(x, time[, labels]) and its scalings.

    network: maps scaled images (b, c, h, w), network times (b,) and, for a conditional network, labels
    (b,) to images of the same shape.
    """

    def __init__(self, network: nn.Module, diffusion: Diffusion) -> None:
        super().__init__()
        self.network, self.diffusion = network, diffusion
        self.scalings = diffusion.scalings

    def forward(self, x_t: Images, t: Times, labels: Labels | None = None) -> Images:
        """Return the clean images (b, c, h, w), not clipped; float32 for any precision of the network."""

        def raw(x: Images, time: Tensor) -> Images:
            residual: Images = self.network(x, time) if labels is None else self.network(x, time, labels)
            return residual

        return precondition(self.scalings, raw, x_t, t)


class Consistency(Preconditioned):
    """A network as a consistency function: f(x, t_min) = x.  Song et al. 2023, Eq. 4 and Eq. 5.

    network: see `Preconditioned`. column: its scalings. levels: the noise levels. piecewise: use the boundary
    condition of Eq. 4 instead of skip connections (Eq. 5).
    """

    def __init__(
        self,
        network: nn.Module,
        column: Column | None = None,
        levels: NoiseLevels | None = None,
        *,
        piecewise: bool = False,
    ) -> None:
        boundary: BoundaryCondition = "piecewise" if piecewise else "skip"
        super().__init__(network, Diffusion.of(levels or NoiseLevels(), column or EDM(), boundary))


class Denoiser(Preconditioned):
    """A network as a diffusion model D(x, t), such as a teacher.  Karras et al. 2022, Eq. 7.

    network: see `Preconditioned`. column: its scalings. levels: the noise levels.
    """

    def __init__(
        self, network: nn.Module, column: Column | None = None, levels: NoiseLevels | None = None
    ) -> None:
        super().__init__(network, Diffusion.of(levels or NoiseLevels(), column or EDM(), "none"))
