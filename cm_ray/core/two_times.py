"""Functions of two times, D(x_t, t, s): the mean of the clean images on the way from t down to s.

With the PF ODE dx/dt = (x - D(x, t))/t, the function is defined by its jump, which is Euler's step:

    x_s = x_t + (s - t) (x_t - D(x_t, t, s))/t = (s/t) x_t + (1 - s/t) D(x_t, t, s)

so that D(x_t, t, s) is the mean of the denoiser D(x_q, q) over q in (s, t), weighted by q^-2. At s = t it is
the denoiser, and at s = 0 the consistency function. Jumps of the exact function compose.

Geng et al. 2025 (MeanFlow) write the same for the linear interpolation z = (1 - u) x + u z', with
u = t/(1 + t), r = s/(1 + s) and z = x_t/(1 + t). Their average velocity is (z - D(x_t, t, s))/u: a mean
clean image does not depend on how x_t is scaled. See docs/two_times.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch

from cm_ray.core.derivative import Target
from cm_ray.core.diffusion import BoundaryCondition
from cm_ray.core.distance import AdaptiveL2
from cm_ray.core.draw import Draw
from cm_ray.core.loss import regression_loss
from cm_ray.core.methods import Method
from cm_ray.core.proposals import lognormal
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Denoise, Distance, Images, Times, per_sample
from cm_ray.core.weights import UniformWeight, Weight
from cm_ray.errors import require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Tensor


def linear_time(t: Times) -> Times:
    """Return u = t/(1 + t), the time in [0, 1) of a linear interpolation with noise level t."""
    return t / (1 + t)


def noise_level(u: Times) -> Times:
    """Return t = u/(1 - u), the noise level of a linear interpolation at time u in [0, 1)."""
    return u / (1 - u)


class TwoTimesMethod(Method):
    """A method that trains a function of two times, by the error of its average velocity.

    The velocity of the linear interpolation is (x_t/(1 + t) - D)/u: the error of D is divided by u.
    """

    boundary: ClassVar[BoundaryCondition] = "two-times"
    numbers: ClassVar[int] = 3

    def compare(self, prediction: Images, aim: Images, draw: Draw, distance: Distance) -> Times:
        """Return the per-sample loss lambda d(D/u, aim/u) (b,)."""
        scale = per_sample(1 / linear_time(draw.t), aim)
        weight = self.weigh(draw.t, draw.s, draw.diffusion.column)
        return regression_loss(scale * prediction, scale * aim, weight, distance)


@dataclass(frozen=True, slots=True)
class SortedTimes:
    """t >= s: two draws of a truncated lognormal, the greater first; s = t for a share of them.

    Geng et al. 2025, section 4.3: the logit-normal distribution of u is the lognormal one of t.
    """

    mean: float = -2.0
    """Mean of ln t; that of logit u in the paper."""
    std: float = 2.0
    """Standard deviation of ln t."""
    apart: float = 0.75
    """Share of the pairs with s < t; the others train the denoiser."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        require(self.std > 0, "std", f"must be positive, not {self.std}")
        require(0 <= self.apart <= 1, "apart", f"must be in [0, 1], not {self.apart}")

    @property
    def scales(self) -> None:
        """None: the times are continuous."""
        return None

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and s (b,) of uniform numbers (b, 3)."""
        one, other = (lognormal(self.mean, self.std, uniforms[:, index], levels) for index in (0, 1))
        t, s = torch.maximum(one, other), torch.minimum(one, other)
        return t, torch.where(uniforms[:, 2] < self.apart, s, t)

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return an empty mapping, because all steps have the same distribution."""
        return {}


@choice(Method, "meanflow")
@dataclass(frozen=True, slots=True, kw_only=True)
class MeanFlow(TwoTimesMethod):
    """MeanFlow: a function of two times from data alone, by a derivative.  Geng et al. 2025, Algorithm 1.

    Their target of the velocity is v - (u - r) du/dt along the trajectory of the image itself; see `aim`.
    """

    differentiates: ClassVar[bool] = True

    times: SortedTimes = field(default_factory=SortedTimes)
    """The pairs of times t >= s that are trained on."""
    distance: Distance = field(default_factory=AdaptiveL2)
    """d, the distance between the average velocity and its target."""
    weight: Weight = field(default_factory=UniformWeight)
    """lambda, the weight of a pair of times."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return (r/u) x + (1 - r/u) (D - u dD/du), of the target D(x_t, t, s) and its derivative at fixed s.

        u d/du = t (1 + t) d/dt, along dx/dt = (x_t - x)/t, which is the noise.
        """
        given = target if isinstance(target, Target) else Target(target)
        factor = draw.t * (1 + draw.t)
        direction = per_sample(factor, draw.noise) * draw.noise
        value, slope = given.ending(draw.s).along(draw.x_t, draw.t, direction, factor)
        share = per_sample(draw.s * (1 + draw.t) / (draw.t * (1 + draw.s)), draw.x)
        return share * draw.x + (1 - share) * (value - slope)
