"""Consistency models in continuous time: the times of a pair coincide, and a derivative takes their place.

With f the consistency function and D the denoiser, the trajectory through x_t goes along dx/dt = (x_t -
D)/t. The aim is sg(f) minus a step along the derivative df/dt of the target on this trajectory, which is zero
for the exact consistency function. Nothing is differentiated through the derivative, so that data-parallel
training and mixed precision work as for other methods.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from cm_ray.core.derivative import Target
from cm_ray.core.diffusion import BoundaryCondition
from cm_ray.core.distance import L2
from cm_ray.core.draw import Draw
from cm_ray.core.guidance import TeacherGuidance, Unguided
from cm_ray.core.methods import ConsistencyMethod, ConsistencyTraining, Method, ModelSource
from cm_ray.core.precondition import EDM, Column
from cm_ray.core.proposals import Grid, Lognormal, PairTimes
from cm_ray.core.schedules import Constant, ConstantDecay, TargetDecay
from cm_ray.core.types import Denoise, Distance, Images, Times, per_sample
from cm_ray.core.weights import OutputScale, UniformWeight, Weight
from cm_ray.errors import SettingError, require
from cm_ray.settings.choices import choice


def _first_order(target: Target, draw: Draw, direction: Images) -> Images:
    """Return f(x_t, t) - (t - s) df/dt along a direction dx/dt: the first order of f(x_s, s) (b, c, h, w)."""
    value, derivative = target.along(draw.x_t, draw.t, direction, torch.ones_like(draw.t))
    return value - per_sample(draw.t - draw.s, value) * derivative


@choice(Method, "continuous-ct")
@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousTraining(ConsistencyTraining):
    """Consistency training in continuous time, N to infinity.  Song et al. 2023, Theorem 6 (squared l2).

    The gradient is that of the theorem, where t - s of a pair of `times` is the scale 1/(tau^-1)' of its
    integrand: finite differences between the times are replaced by the derivative.
    """

    differentiates: ClassVar[bool] = True

    times: PairTimes = field(default_factory=lambda: Grid(scales=Constant(n=1280)))
    """The pairs of times; t is trained on, and t - s scales its gradient."""
    target: TargetDecay = field(default_factory=lambda: ConstantDecay(mu=0.0))
    """mu(k), the decay of the target network; the theorem's is the student itself."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return f(x_t, t) - (t - s) df/dt along the noise, which is (x_t - x)/t."""
        return _first_order(_differentiable(target), draw, draw.noise)


@choice(Method, "continuous-cd")
@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousDistillation(ConsistencyMethod):
    """Consistency distillation in continuous time.  Song et al. 2023, Theorem 5 (squared l2, stop-gradient).

    See `ContinuousTraining`. The derivative goes along the teacher's ODE, which no solver has to follow.
    """

    needs_teacher: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True

    teacher: ModelSource = field(default_factory=ModelSource)
    """The diffusion model that is distilled."""
    guidance: TeacherGuidance = field(default_factory=Unguided)
    """The guidance of the teacher."""
    times: Grid = field(default_factory=lambda: Grid(scales=Constant(n=1280)))
    """The pairs of times; t is trained on, and t - s scales its gradient."""
    target: TargetDecay = field(default_factory=lambda: ConstantDecay(mu=0.0))
    """mu(k), the decay of the target network; the theorem's is the student itself."""
    distance: Distance = field(default_factory=L2)
    """d, the distance between f(x_t, t) and the aim; squared l2 in the theorem."""
    weight: Weight = field(default_factory=UniformWeight)
    """lambda, the weight of a pair of times."""
    boundary: Literal["skip", "piecewise"] = "skip"
    """f(x, t_min) = x by skip connections (Eq. 5 of the paper) or piecewise (Eq. 4)."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return f(x_t, t) - (t - s) df/dt along the teacher's ODE."""
        direction = (draw.x_t - teacher(draw.x_t, draw.t)) / per_sample(draw.t, draw.x_t)
        return _first_order(_differentiable(target), draw, direction)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Simplified(Method):
    """sCM: continuous time with normalised derivatives.  Lu & Song 2024, with sigma for sigma_data tan t.

    In TrigFlow's notation the residual of the network F is F - sg(F) - g/(|g| + c), with the tangent
    g = -cos^2 t (sigma_d F - v) - r cos t sin t (x_t + sigma_d dF/dt). In sigma, with h^2 = sigma^2 +
    sigma_d^2, it is g = (1 - r) sigma_d^2/(h sigma) (f - D) + r h df/dsigma, and the residual of f is
    c_out = sigma_d sigma/h times that of F: the equations for any column whose output has this scale, and for
    other ones with the residual of this scale.
    """

    differentiates: ClassVar[bool] = True
    boundary: ClassVar[BoundaryCondition] = "zero"

    times: Lognormal = field(default_factory=lambda: Lognormal(mean=-1.0, std=1.4))
    """The noise levels that are trained on."""
    warmup: int = 10_000
    """Steps until the derivative has its full share r in the tangent; 0: from the start."""
    constant: float = 0.1
    """c of the normalisation g/(|g| + c)."""
    norm: Literal["sum", "mean"] = "sum"
    """|g| as the root of the sum of squares, as in the paper, or of their mean over the pixels."""
    sigma_data: float = 0.0
    """sigma_d, standard deviation of the data in [-1, 1]; 0: that of column edm or trigflow. Under another
    column, that of a teacher, the residual and its weight keep this scale."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        sound = self.sigma_data >= 0
        require(sound, "sigma_data", f"must be positive, or 0 for the column's, not {self.sigma_data}")
        require(self.warmup >= 0, "warmup", f"must not be negative, but is {self.warmup}")
        require(self.constant > 0, "constant", f"must be positive, not {self.constant}")

    @property
    def distance(self) -> Distance:
        """Squared l2."""
        return L2()

    @property
    def weight(self) -> Weight:
        """1/c_out^2, which makes the loss that of F; see `weigh`."""
        return OutputScale()

    def weigh(self, t: Times, s: Times, column: Column) -> Times:
        """Return the weights (b,): 1/c_out^2 of column edm with this sigma_d, whatever the column is."""
        return OutputScale()(t, s, EDM(sigma_data=self.spread(column)))

    def spread(self, column: Column) -> float:
        """Return sigma_d. Raises SettingError where neither the method nor the column has it."""
        sigma_data = self.sigma_data or float(getattr(column, "sigma_data", 0.0))
        if not sigma_data:
            raise SettingError("column", "must be trigflow or edm, or set the method's sigma_data")
        return sigma_data

    def gauges(self, step: int, total_steps: int) -> dict[str, float]:
        """Return r, the share of the derivative in the tangent."""
        return {"tangent_share": self.share(step)}

    def share(self, step: int) -> float:
        """Return r at a step: from 0 to 1 during the warm-up."""
        return min(1.0, step / self.warmup) if self.warmup else 1.0

    def _aim(self, draw: Draw, target: Denoise, clean: Images, direction: Images) -> Images:
        """Return the aim; clean: D(x_t, t); direction: dx/dsigma of the trajectory, (x_t - D)/sigma."""
        sigma_data = self.spread(draw.diffusion.column)
        h = (draw.t.square() + sigma_data**2).sqrt()
        h_, sigma = per_sample(h, draw.x_t), per_sample(draw.t, draw.x_t)
        value, slope = _differentiable(target).along(draw.x_t, draw.t, h_ * direction, h)
        r = self.share(draw.step)
        tangent = (1 - r) * sigma_data**2 / (h_ * sigma) * (value - clean) + r * slope
        flat = tangent.flatten(1).square()
        size = (flat.sum(1) if self.norm == "sum" else flat.mean(1)).sqrt()
        return value - sigma_data * sigma / h_ * tangent / (per_sample(size, tangent) + self.constant)


@choice(Method, "sct")
@dataclass(frozen=True, slots=True, kw_only=True)
class SimplifiedTraining(_Simplified):
    """sCT: consistency training in continuous time, without a teacher.  Lu & Song 2024, Algorithm 1."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return the aim, along the trajectory of the image itself: D = x."""
        return self._aim(draw, target, draw.x, draw.noise)


@choice(Method, "scd")
@dataclass(frozen=True, slots=True, kw_only=True)
class SimplifiedDistillation(_Simplified):
    """sCD: consistency distillation in continuous time.  Lu & Song 2024, Algorithm 1."""

    needs_teacher: ClassVar[bool] = True

    teacher: ModelSource = field(default_factory=ModelSource)
    """The diffusion model that is distilled."""
    guidance: TeacherGuidance = field(default_factory=Unguided)
    """The guidance of the teacher."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return the aim, along the teacher's trajectory."""
        clean = teacher(draw.x_t, draw.t)
        return self._aim(draw, target, clean, (draw.x_t - clean) / per_sample(draw.t, draw.x_t))


def _differentiable(target: Denoise) -> Target:
    return target if isinstance(target, Target) else Target(target)
