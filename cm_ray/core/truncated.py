"""Truncated consistency models: a second stage of training that learns the times above t' alone.

A consistency function has to denoise at small t and to generate at large t. The first stage, any consistency
model, is kept for the times below t', so that all capacity of the student goes to those above. Nothing is
differentiated along a trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from cm_ray.core.distance import Norm
from cm_ray.core.draw import Draw
from cm_ray.core.methods import ConsistencyMethod, Method, ModelSource
from cm_ray.core.pairs import perturb
from cm_ray.core.precondition import Column
from cm_ray.core.schedules import ConstantDecay, TargetDecay
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Denoise, Distance, Images, Times, per_sample
from cm_ray.core.weights import InverseGap, Weight
from cm_ray.errors import require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Tensor

_POINTS = 4097
"""Points of the table that a Student t distribution is inverted by."""
_TOUCH = 1e-6
"""Times that are this near to t', relative to it, are the boundary's: rounding to float32 moves them less."""


@dataclass(frozen=True, slots=True)
class TruncatedTimes:
    """t = t' with probability `share`, else ln t ~ Student t, truncated to (t', t_max); and s close to t.

    Lee et al. 2024 (TCM), as in their code. s/t = 1 - (1 - ratio) (1 + k sigmoid(-b t)), the last stage of
    ECT. With few degrees of freedom the density of ln t falls as 1/|ln t - mean| away from the mean.
    """

    cut: float = 1.0
    """t', above which the student is trained and below which the first stage is kept."""
    share: float = 0.25
    """Share of the pairs at the boundary, whose t is t'."""
    mean: float = 0.0
    """Location of ln t."""
    scale: float = 0.2
    """Scale of ln t."""
    df: float = 0.01
    """Degrees of freedom of Student's t distribution."""
    ratio: float = 0.999
    """s/t at large t."""
    k: float = 8.0
    """Factor k of the distance at small t."""
    b: float = 1.0
    """Rate b at which the factor decreases with t."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        for name in ("cut", "scale", "df"):
            require(getattr(self, name) > 0, name, f"must be positive, not {getattr(self, name)}")
        require(0 <= self.share < 1, "share", f"must be in [0, 1), not {self.share}")
        require(0 < self.ratio < 1, "ratio", f"must be in (0, 1), not {self.ratio}")
        require(self.k >= 0, "k", f"must not be negative, but is {self.k}")

    @property
    def scales(self) -> None:
        """None: the times are continuous."""
        return None

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and s, float32 (b,)."""
        inside = (uniforms.double() - self.share) / (1 - self.share)
        t = self._above(inside.clamp(0, 1), levels.t_max).clamp(self.cut * (1 + 2 * _TOUCH), levels.t_max)
        t = torch.where(inside < 0, self.cut, t)
        gap = (1 - self.ratio) * (1 + self.k * torch.sigmoid(-self.b * t))
        s = (t * (1 - gap)).clamp(min=levels.t_min)
        return t.float(), s.float()

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return an empty mapping, because all steps have the same distribution."""
        return {}

    def at_boundary(self, t: Times) -> Tensor:
        """Return which times are t', bool (b,)."""
        return t < self.cut * (1 + _TOUCH)

    def _above(self, uniforms: Tensor, t_max: float) -> Tensor:
        """Return exp of the truncated Student t at its quantiles, float64 (b,)."""
        edges = [(math.log(t) - self.mean) / self.scale for t in (self.cut, t_max)]
        w, cumulative = _student(self.df, *(math.asinh(z / math.sqrt(self.df)) for z in edges))
        w, cumulative = w.to(uniforms.device), cumulative.to(uniforms.device)
        after = torch.searchsorted(cumulative, uniforms, right=True).clamp(1, len(w) - 1)
        low, high = cumulative[after - 1], cumulative[after]
        found = w[after - 1] + (uniforms - low) / (high - low) * (w[after] - w[after - 1])
        return (self.mean + self.scale * math.sqrt(self.df) * torch.sinh(found)).exp()


@choice(Method, "tcm")
@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedTraining(ConsistencyMethod):
    """TCM: the second stage of truncated consistency training.  Lee et al. 2024, with their code's pairs.

    The target at s is the first stage's if s < t', so that its boundary condition f(x, t_min) = x passes on
    through t'; the pairs at t = t' are there for that. The model is to be sampled at times of at least t'.
    """

    needs_teacher: ClassVar[bool] = True
    teacher_is_consistent: ClassVar[bool] = True

    teacher: ModelSource = field(default_factory=ModelSource)
    """The first stage: a consistency model, which is kept below t'."""
    times: TruncatedTimes = field(default_factory=TruncatedTimes)
    """The pairs of times that are trained on."""
    distance: Distance = field(default_factory=Norm)
    """d, the distance between f(x_t, t) and the target's f(x_s, s)."""
    weight: Weight = field(default_factory=InverseGap)
    """lambda, the weight of a pair of times."""
    boundary_weight: float = 0.1
    """Weight of the mean loss at t = t', beside that of the mean loss above, which is 1."""
    target: TargetDecay = field(default_factory=lambda: ConstantDecay(mu=0.0))
    """mu(k), the decay of the target network."""
    boundary: Literal["skip", "piecewise"] = "skip"
    """f(x, t_min) = x by skip connections or piecewise, as in the first stage."""

    def __post_init__(self) -> None:
        """Raise SettingError when the boundary's weight is negative, or the target decay needs a grid."""
        weight = self.boundary_weight
        require(weight >= 0, "boundary_weight", f"must not be negative, but is {weight}")
        constant = isinstance(self.target, ConstantDecay)
        require(constant, "target", "adaptive follows N(k) of times grid: choose target constant")

    @property
    def lowest_time(self) -> float:
        """t'."""
        return self.times.cut

    def weigh(self, t: Times, s: Times, column: Column) -> Times:
        """Return lambda, times the weight of the sub-batch over its expected share of the batch (b,).

        The mean over the batch is, in expectation, the mean loss above t' plus `boundary_weight` times that
        at t'.
        """
        share = self.times.share
        at = self.boundary_weight / share if share else 0.0
        return self.weight(t, s, column) * torch.where(self.times.at_boundary(t), at, 1 / (1 - share))

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return f(x_s, s): of the first stage where s < t', of the target elsewhere.

        Both see the whole batch, since parts of a size that depends on the draw would have other dropout
        masks than the student, wait for a GPU, and be compiled anew.
        """
        x_s = perturb(draw.x, draw.noise, draw.s)
        below = per_sample(draw.s < self.times.cut, x_s)
        return torch.where(below, teacher(x_s, draw.s), target(x_s, draw.s))


@lru_cache(maxsize=8)
def _student(df: float, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return w and the cumulative distribution of Student's t at sqrt(df) sinh(w), float64 (n,), from 0 to 1.

    With z = sqrt(df) sinh(w) the density (1 + z^2/df)^(-(df + 1)/2) dz is that of cosh(w)^-df dw, which is
    nearly constant for few degrees of freedom; by the trapezoidal rule.
    """
    w = torch.linspace(low, high, _POINTS, dtype=torch.float64)
    peak = w.abs().min()  # divided by, so that many degrees of freedom do not underflow
    density = (torch.cosh(peak) / torch.cosh(w)) ** df
    parts = (density[1:] + density[:-1]) / 2
    cumulative = torch.cat([parts.new_zeros(1), parts.cumsum(0)])
    return w, cumulative / cumulative[-1]
