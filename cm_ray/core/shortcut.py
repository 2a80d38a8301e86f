"""Shortcut models: functions of two times that agree with two jumps of half the length. Frans et al. 2024."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from cm_ray.core.derivative import Target
from cm_ray.core.distance import L2
from cm_ray.core.draw import Draw
from cm_ray.core.methods import ConsistencyMethod, Method, euler_to_denoised
from cm_ray.core.schedules import ConstantDecay, TargetDecay
from cm_ray.core.solvers import euler_step
from cm_ray.core.times import NoiseLevels
from cm_ray.core.two_times import TwoTimesMethod, linear_time, noise_level
from cm_ray.core.types import Denoise, Distance, Images, Times, per_sample
from cm_ray.core.weights import UniformWeight, Weight
from cm_ray.errors import require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Tensor

_MOST_LENGTHS = 20


@dataclass(frozen=True, slots=True)
class DyadicTimes:
    """Jumps from t to s of 1, 1/2, 1/4 ... of the way from t_max to 0, measured by u = t/(1 + t).

    All lengths are equally likely, and so are all places of a length, which are multiples of it. For the
    other pairs s = t, with a uniform u, and at least t_min. Frans et al. 2024, section 3.2.
    """

    share: float = 0.25
    """Share of the jumps among the pairs; the others train the denoiser."""
    lengths: int = 7
    """Number of lengths; 7 for jumps from the whole way to 1/64 of it, of halves of at least 1/128."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        require(0 <= self.share <= 1, "share", f"must be in [0, 1], not {self.share}")
        within = 1 <= self.lengths <= _MOST_LENGTHS
        require(within, "lengths", f"must be from 1 to {_MOST_LENGTHS}, not {self.lengths}")

    @property
    def scales(self) -> None:
        """None: there is no Karras grid."""
        return None

    def __call__(
        self, uniforms: Tensor, step: int, total_steps: int, levels: NoiseLevels, /
    ) -> tuple[Times, Times]:
        """Return t and s (b,) of uniform numbers (b, 3)."""
        kind, length, place = uniforms.double().unbind(1)
        count = 2.0 ** (length * self.lengths).floor()
        index = (place * count).floor()
        whole = levels.t_max / (1 + levels.t_max)
        top, bottom = (noise_level(whole * at / count) for at in (index + 1, index))
        single = noise_level(whole * place).clamp(min=levels.t_min)
        jumps = kind < self.share
        t, s = torch.where(jumps, top, single), torch.where(jumps, bottom, single)
        return t.clamp(max=levels.t_max).float(), s.float()

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return an empty mapping, because all steps have the same distribution."""
        return {}

    def shortest(self, t: Times, s: Times, levels: NoiseLevels) -> Tensor:
        """Return which jumps are of the least length, bool (b,)."""
        whole = levels.t_max / (1 + levels.t_max)
        return linear_time(t) - linear_time(s) < 1.5 * whole * 2.0 ** (1 - self.lengths)


@choice(Method, "shortcut")
@dataclass(frozen=True, slots=True, kw_only=True)
class ShortcutTraining(TwoTimesMethod, ConsistencyMethod):
    """Shortcut models: a jump is to lead to where two jumps of half its length do.  Frans et al. 2024.

    No derivative is taken. The halves of the shortest jumps are Euler's steps with the denoiser.
    """

    times: DyadicTimes = field(default_factory=DyadicTimes)
    """The jumps from t to s that are trained on."""
    distance: Distance = field(default_factory=L2)
    """d, the distance between the average velocity and its target."""
    weight: Weight = field(default_factory=UniformWeight)
    """lambda, the weight of a pair of times."""
    target: TargetDecay = field(default_factory=lambda: ConstantDecay(mu=0.999))
    """mu(k), the decay of the target network, which takes the two jumps."""

    def __post_init__(self) -> None:
        """Raise SettingError when the target decay needs a grid."""
        constant = isinstance(self.target, ConstantDecay)
        require(constant, "target", "adaptive follows N(k) of times grid: choose target constant")

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return x where s = t, else the mean clean image of two jumps of the target.

        The target sees the whole batch twice, since parts of a size that depends on the draw would have other
        dropout masks than the student, wait for a GPU, and be compiled anew.
        """
        given, single = target if isinstance(target, Target) else Target(target), draw.s == draw.t
        s = torch.where(single, 0.0, draw.s)
        middle = noise_level((linear_time(draw.t) + linear_time(s)) / 2)
        short = self.times.shortest(draw.t, s, draw.diffusion)
        x_s = draw.x_t
        for start, end in ((draw.t, middle), (middle, s)):
            x_s = euler_step(given.ending(torch.where(short, start, end)), x_s, start, end)
        return torch.where(per_sample(single, x_s), draw.x, euler_to_denoised(draw.x_t, draw.t, x_s, s))
