"""Any network with a preconditioning: a consistency function f, a denoiser D, or a function of two times."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cm_ray.core.diffusion import BoundaryCondition, Diffusion
from cm_ray.core.guidance import UNGUIDED
from cm_ray.core.precondition import EDM, Column, Linear, precondition
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Images, Labels, Times


class Preconditioned(nn.Module):
    """Maps noisy images and times to clean images, by a network F(x, time[, labels]) and its scalings.

    network: maps scaled images (b, c, h, w), network times (b,) and, for a conditional network, labels
    (b,) to images of the same shape; one of two times takes the difference of the network times of t and s
    (b,) as the keyword `second`, too, and one of a student that takes the guidance scale (b,) the keyword
    `scale`.
    """

    def __init__(self, network: nn.Module, diffusion: Diffusion) -> None:
        super().__init__()
        self.network, self.diffusion = network, diffusion
        self.scalings = diffusion.scalings

    def forward(
        self,
        x_t: Images,
        t: Times,
        labels: Labels | None = None,
        s: Times | None = None,
        scale: Times | None = None,
        augment: Tensor | None = None,
    ) -> Images:
        """Return the clean images (b, c, h, w), not clipped; float32 for any precision of the network.

        s: the second time of a function of two times (b,); 0 if it is not given. scale: the guidance scale of
        a student that takes it (b,); 1, no guidance, if it is not given. augment: numbers that describe the
        augmentation of the images (b, n), for a network that takes them as the keyword `augment`. Raises
        ValueError when a function gets s or a scale that it does not take.
        """
        given: tuple[Tensor, ...] = () if labels is None else (labels,)
        added = self._added(t, s, scale) | ({} if augment is None else {"augment": augment})

        def raw(x: Images, time: Tensor) -> Images:
            residual: Images = self.network(x, time, *given, **added)
            return residual

        return precondition(self.scalings, raw, x_t, t)

    def before_step(self) -> None:
        """Let the network change its weights before a step of training, if it has a method `before_step`.

        Such a change follows from the weights alone, and does not change what the network computes: averages
        do not see it, and a training that was interrupted goes on with the same bits.
        """
        if (change := getattr(self.network, "before_step", None)) is not None:
            change()

    def _added(self, t: Times, s: Times | None, scale: Times | None) -> dict[str, Tensor]:
        """Return the inputs of the network beside images, times and labels."""
        added: dict[str, Tensor] = {}
        if self.diffusion.two_times:
            end = torch.zeros_like(t) if s is None else s
            added["second"] = self.scalings.network_time(t) - self.scalings.network_time(end)
        elif s is not None:
            raise ValueError("this is a function of one time, and takes no second one")
        if self.diffusion.guidance:
            added["scale"] = torch.full_like(t, UNGUIDED) if scale is None else scale
        elif scale is not None:
            raise ValueError("this function takes no guidance scale")
        return added


class Consistency(Preconditioned):
    """A network as a consistency function: f(x, t_min) = x.  Song et al. 2023, Eq. 4 and Eq. 5.

    network: see `Preconditioned`. column: its scalings. levels: the noise levels. piecewise: use the boundary
    condition of Eq. 4 instead of skip connections (Eq. 5). guidance: the least and the greatest guidance
    scale that the network takes as an input; empty if it takes none.
    """

    def __init__(
        self,
        network: nn.Module,
        column: Column | None = None,
        levels: NoiseLevels | None = None,
        *,
        piecewise: bool = False,
        guidance: tuple[float, ...] = (),
    ) -> None:
        boundary: BoundaryCondition = "piecewise" if piecewise else "skip"
        super().__init__(network, Diffusion.of(levels or NoiseLevels(), column or EDM(), boundary, guidance))


class TwoTimes(Preconditioned):
    """A network as a function D(x, t, s) of two times; see `cm_ray.core.two_times`.

    network: see `Preconditioned`. column: its scalings, whose network time must be finite at 0. levels: the
    noise levels.
    """

    def __init__(
        self, network: nn.Module, column: Column | None = None, levels: NoiseLevels | None = None
    ) -> None:
        super().__init__(network, Diffusion.of(levels or NoiseLevels(), column or Linear(), "two-times"))


class Denoiser(Preconditioned):
    """A network as a diffusion model D(x, t), such as a teacher.  Karras et al. 2022, Eq. 7.

    network: see `Preconditioned`. column: its scalings. levels: the noise levels.
    """

    def __init__(
        self, network: nn.Module, column: Column | None = None, levels: NoiseLevels | None = None
    ) -> None:
        super().__init__(network, Diffusion.of(levels or NoiseLevels(), column or EDM(), "none"))
