"""Sliced score matching: the score from noisy images alone, by a derivative along random directions.

Song et al. 2019; Song & Ermon 2019 (NCSN), section 2.1, for the images of each noise level. With the score
s = (D - x_t)/t^2 the objective v^T ds/dx v + |s|^2/2 is, times 2 t^4 and up to a constant,

    |D - x_t|^2 + 2 t^2 v^T dD/dx v - t^2 |v|^2,

whose mean over noise and directions is that of |D - x|^2, the loss of denoising score matching (Stein's
unbiased estimate of a risk). So the regression target is the noisy image itself, and a divergence is added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from cm_ray.core.diffusion import BoundaryCondition
from cm_ray.core.distance import L2
from cm_ray.core.draw import Draw
from cm_ray.core.methods import Method
from cm_ray.core.noise_times import Geometric
from cm_ray.core.proposals import NoiseTimes
from cm_ray.core.types import Denoise, Distance, Images, Times
from cm_ray.core.weights import SNR, Weight
from cm_ray.settings.choices import choice


@choice(Method, "ssm")
@dataclass(frozen=True, slots=True, kw_only=True)
class SlicedScoreMatching(Method):
    """Sliced score matching of a diffusion model, with random signs as directions.  Song et al. 2019.

    The gradient goes through the derivative by a second backward pass.
    """

    boundary: ClassVar[BoundaryCondition] = "none"
    projects: ClassVar[bool] = True

    times: NoiseTimes = field(default_factory=Geometric)
    """The noise levels that are trained on."""
    weight: Weight = field(default_factory=SNR)
    """lambda, the weight of a noise level, as of method edm."""
    variance_reduced: bool = True
    """Take |s|^2 as it is (SSM-VR), instead of (v^T s)^2 of the random direction."""

    @property
    def distance(self) -> Distance:
        """Squared l2, which belongs to the objective."""
        return L2()

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return x_t, the noisy image."""
        return draw.x_t

    def loss(self, student: Denoise, aim: Images, draw: Draw, distance: Distance) -> Times:
        """Return the per-sample loss (b,), whose mean is that of denoising score matching.

        Raises ValueError when the draw has no direction.
        """
        # not imported above: recipes import this module, and parse their options before torch is executed
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if (v := draw.direction) is None:
            raise ValueError("sliced score matching needs the direction of a draw")
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            x_t = draw.x_t.detach().requires_grad_()
            prediction = student(x_t, draw.t)
            (slope,) = torch.autograd.grad((v * prediction).sum(), x_t, create_graph=True)
        divergence = (v * slope).flatten(1).mean(1)
        if self.variance_reduced:
            fit = distance(prediction, aim)
        else:
            fit = (v * (prediction - aim)).flatten(1).sum(1).square() / v[0].numel()
        weight = self.weigh(draw.t, draw.s, draw.diffusion.column)
        return weight * (fit + draw.t.square() * (2 * divergence - v.square().flatten(1).mean(1)))
