"""The samplers, from noise to images, as settings: each has a word, checks itself and makes its own steps.

A new sampler is a dataclass here, with a loop in `cm_ray.sampling.sampling_steps`. Their short texts, such as
``multistep@2.0,0.8`` and ``heun:18``, are known by `cm_ray.sampling.text` alone.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from cm_ray.core.times import NoiseLevels, turned
from cm_ray.core.types import Images, Jump, Labels, Noise, Times
from cm_ray.errors import SettingError, UserError, require
from cm_ray.sampling.finite import finite
from cm_ray.sampling.sampler import Sampler as Sampler
from cm_ray.sampling.sampling_steps import (
    Churn,
    Step,
    dpm_solver_2,
    euler,
    euler_ancestral,
    heun,
    jumps,
    multistep,
)
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Generator


@choice(Sampler, "one-step")
@dataclass(frozen=True, slots=True)
class OneStep(Sampler):
    """One evaluation of a consistency function, at t_max.  Song et al. 2023, section 3."""

    for_denoisers: ClassVar[bool] = False
    scale_is_input: ClassVar[bool] = True
    taus: ClassVar[tuple[float, ...]] = ()

    @property
    def evaluations(self) -> int:
        """1."""
        return 1

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return t_min and t_max."""
        return levels.t_min, levels.t_max

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return multistep(denoise, noise, times)


@dataclass(frozen=True, slots=True)
class PointSampler(Sampler):
    """A sampler that evaluates at t_max and at time points of its own below it."""

    for_denoisers: ClassVar[bool] = False
    scale_is_input: ClassVar[bool] = True

    taus: tuple[float, ...] = (0.8,)
    """Time points tau_1 > tau_2 > ... below t_max, where the first evaluation is."""

    def __post_init__(self) -> None:
        """Raise SettingError unless the time points are positive and descend."""
        Sampler.__post_init__(self)
        require(bool(self.taus), "taus", "needs at least one time point: one evaluation is sampler one-step")
        positive = all(math.isfinite(tau) and tau > 0 for tau in self.taus)
        require(positive, "taus", f"must be positive numbers, not {list(self.taus)}")
        descend = all(high > low for high, low in itertools.pairwise(self.taus))
        require(descend, "taus", f"must descend, not be {list(self.taus)}")

    @property
    def evaluations(self) -> int:
        """One more than time points."""
        return len(self.taus) + 1

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return t_min, the time points and t_max, ascending."""
        if not (levels.t_min < self.taus[-1] and self.taus[0] < levels.t_max):
            between = f"between {levels.t_max:g} and {levels.t_min:g}"
            raise SettingError("taus", f"must descend {between}, not be {list(self.taus)}")
        return turned((levels.t_max, *self.taus, levels.t_min))


@choice(Sampler, "multistep")
@dataclass(frozen=True, slots=True)
class Multistep(PointSampler):
    """Multistep consistency sampling.  Song et al. 2023, Algorithm 1."""

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return multistep(denoise, noise, times)


@choice(Sampler, "jumps")
@dataclass(frozen=True, slots=True)
class Jumps(PointSampler):
    """Jumps of a function of two times from t_max over the time points to 0.  Geng et al. 2025 (MeanFlow)."""

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return 0, the time points and t_max, ascending."""
        return (0.0, *PointSampler.times(self, levels)[1:])

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return jumps(denoise, noise, times)


@dataclass(frozen=True, slots=True)
class _Solver(Sampler):
    """A sampler of diffusion models, on the Karras grid and past it to 0.  Karras et al. 2022, Eq. 5."""

    steps: int
    """Steps of the grid."""

    def __post_init__(self) -> None:
        """Raise SettingError without steps."""
        Sampler.__post_init__(self)
        require(self.steps >= 1, "steps", f"must be at least 1, not {self.steps}")

    @property
    def evaluations(self) -> int:
        """One evaluation a step."""
        return self.steps

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return 0 and the grid of as many boundaries as steps."""
        return (0.0, *(levels.grid(self.steps).tolist() if self.steps > 1 else [levels.t_max]))


@choice(Sampler, "euler")
@dataclass(frozen=True, slots=True)
class Euler(_Solver):
    """Euler's steps of the probability flow ODE: DDIM.  Song et al. 2021."""

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return euler(denoise, noise, times)


@choice(Sampler, "ancestral")
@dataclass(frozen=True, slots=True)
class Ancestral(_Solver):
    """Ancestral sampling, with new noise in every step.  Ho et al. 2020; Song et al. 2021, appendix F."""

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return euler_ancestral(denoise, noise, times)


@choice(Sampler, "pd")
@dataclass(frozen=True, slots=True)
class Progressive(_Solver):
    """Euler's steps on the grid of a round of progressive distillation, to t_min.  Salimans & Ho 2022."""

    scale_is_input: ClassVar[bool] = True

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return the grid of as many intervals as steps."""
        return tuple(levels.grid(self.steps + 1).tolist())

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return euler(denoise, noise, times)


@dataclass(frozen=True, slots=True)
class _SecondOrder(_Solver):
    @property
    def evaluations(self) -> int:
        """Two evaluations a step, but one in the step to 0."""
        return 2 * self.steps - 1


@choice(Sampler, "dpm2")
@dataclass(frozen=True, slots=True)
class DPM2(_SecondOrder):
    """DPM-Solver-2.  Lu et al. 2022, Algorithm 1."""

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return dpm_solver_2(denoise, noise, times)


@choice(Sampler, "heun")
@dataclass(frozen=True, slots=True)
class Heun(_SecondOrder):
    """EDM's sampler: Heun's steps, with or without churn.  Karras et al. 2022, Algorithms 1 and 2."""

    steps: int = 18
    """Steps of the grid."""
    s_churn: float = 0.0
    """S_churn, the amount of noise that is added on the way; 0: the deterministic Algorithm 1."""
    s_min: float = 0.05
    """S_tmin, the least noise level at which noise is added."""
    s_max: float = 50.0
    """S_tmax, the largest such level."""
    s_noise: float = 1.003
    """S_noise, the standard deviation of the added noise over its nominal one."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        _Solver.__post_init__(self)
        for name in ("s_churn", "s_min", "s_max", "s_noise"):
            value = getattr(self, name)
            sound = math.isfinite(value) and value >= 0
            require(sound, name, f"must be finite and not negative, not {value}")

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        churn = Churn(self.s_churn, self.s_min, self.s_max, self.s_noise)
        return heun(denoise, noise, times, churn=churn)


def sample(
    f: Any,
    noise: Images,
    sampler: Sampler | None = None,
    labels: Labels | None = None,
    *,
    weak: Any = None,
    generator: Generator | None = None,
) -> Images:
    """Return samples in [-1, 1], up to the noise of t_min (b, c, h, w).

    f: a map (x_t, t[, labels]) to clean images with a `diffusion`, such as `Consistency` or `Denoiser`, or of
    two times, such as `TwoTimes`; a module is in eval mode meanwhile. noise: standard normal (b, c, h, w),
    the start. sampler: by default `OneStep`, or `Heun` for a denoiser. labels: int64 (b,), for f. weak: the
    weaker model of a sampler with guidance, a map like f; by default f without the class, at labels -1.
    generator: of the noise of later steps, by default PyTorch's. Raises UserError when the sampler is for
    another kind of model, or when a pixel is not finite.
    """
    chosen = _checked(sampler, f)
    device = generator.device if generator is not None else torch.device("cpu")

    def draw(index: int) -> Images:
        if index == 0:
            return noise
        return torch.randn(noise.shape, generator=generator, device=device).to(noise)

    guided = chosen.guiding(f, weak)

    def denoise(x_t: Images, t: Times, s: Times | None = None) -> Images:
        given = (labels, s) if s is not None else () if labels is None else (labels,)
        estimate: Images = guided(x_t, t, *given)
        return estimate

    with torch.no_grad(), _in_eval_mode(f):
        *_, last = chosen.trajectory(denoise, draw, f.diffusion)
    return finite(last.x)


def _checked(sampler: Sampler | None, f: Any) -> Sampler:
    """Return the sampler, or the default one. Raises UserError when it is for another kind of model."""
    chosen = sampler or (Heun() if f.diffusion.denoiser else OneStep())
    if not isinstance(chosen, Sampler):
        raise UserError(f"sampler must be an object such as Multistep(taus=(0.8,)), not {chosen!r}.")
    if isinstance(chosen, Jumps) and not f.diffusion.two_times:
        raise UserError("Jumps is for functions of two times, and f is none: take Multistep or Heun.")
    if chosen.for_denoisers != f.diffusion.denoiser:
        kinds = ("consistency models", "diffusion models")
        theirs, wanted = kinds[chosen.for_denoisers], "Heun" if f.diffusion.denoiser else "Multistep"
        raise UserError(f"{type(chosen).__name__} is for {theirs}, and f is none: take {wanted}.")
    return chosen


@contextlib.contextmanager
def _in_eval_mode(f: Any) -> Iterator[None]:
    """Put a module, if it is one, in eval mode, and all of its parts back where they were."""
    parts = [(part, part.training) for part in f.modules()] if isinstance(f, torch.nn.Module) else []
    try:
        if parts:
            f.eval()
        yield
    finally:
        for part, training in parts:
            part.training = training
