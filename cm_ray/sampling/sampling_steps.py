"""The samplers' loops from noise to images, ``loop(denoise, noise, times, ...)``: generators of steps.

Times ascend, and a loop goes down from ``times[-1]``. It starts with times[-1] · noise(0); stochastic
samplers add noise(1), noise(2) ... A step to time 0 returns the denoiser's estimate. The settings of the
samplers are in `cm_ray.sampling.samplers`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from cm_ray.core.solvers import euler_step, heun_step, slope
from cm_ray.core.times import turned
from cm_ray.core.types import Denoise, Images, Jump, Noise, Times


class Step(NamedTuple):
    """The state of a sampler after a step."""

    x: Images
    """Images at noise level `t` (b, c, h, w); those of the last step are the samples."""
    t: float
    """Time at the end of the step."""


def clipped(denoise: Callable[..., Images]) -> Jump:
    """Return a function of one or two times with its estimates clamped to [-1, 1].

    It is used for sampling, not for training. Infinite values become NaN, since clamped they would pass for
    black and white.
    """

    def estimate(x_t: Images, t: Times, s: Times | None = None, /) -> Images:
        clean = denoise(x_t, t) if s is None else denoise(x_t, t, s)
        return torch.where(clean.isfinite(), clean.clamp(-1.0, 1.0), math.nan)

    return estimate


def multistep(denoise: Denoise, noise: Noise, times: Sequence[float]) -> Iterator[Step]:
    """Multistep consistency sampling.  Song et al. 2023, Algorithm 1.

    denoise: a consistency function. times: (t_min, tau_k, ..., tau_1, t_max); (t_min, t_max) is one-step
    generation. Each step is one evaluation. Raises ValueError when the times do not ascend.
    """
    t_min, *above = ascending(times)
    taus = turned(above)
    x = taus[0] * noise(0)
    for index, tau in enumerate(taus):
        if index:
            x = x + math.sqrt(tau**2 - t_min**2) * noise(index)
        x = denoise(x, full(x, tau))
        yield Step(x, t_min)


def euler(denoise: Denoise, noise: Noise, times: Sequence[float]) -> Iterator[Step]:
    """Euler's method for the PF ODE, one evaluation per step: DDIM; used by progressive distillation."""
    pairs = _descending_pairs(times)
    x = pairs[0][0] * noise(0)
    for t, s in pairs:
        x = euler_step(denoise, x, full(x, t), full(x, s))
        yield Step(x, s)


def jumps(mean: Jump, noise: Noise, times: Sequence[float]) -> Iterator[Step]:
    """Jumps along the trajectory, one evaluation each, without further noise.  Geng et al. 2025, Eq. 12.

    mean: a function of two times. A jump is Euler's step with the mean of the clean images on its way, which
    is exact for the exact function: a sample does not depend on where the jumps end.
    """
    pairs = _descending_pairs(times)
    x = pairs[0][0] * noise(0)
    for t, s in pairs:
        end = full(x, s)
        x = euler_step(lambda x_t, t, end=end: mean(x_t, t, end), x, full(x, t), end)
        yield Step(x, s)


@dataclass(frozen=True)
class Churn:
    """The stochasticity of EDM's Algorithm 2; S_churn = 0 is Algorithm 1."""

    s_churn: float = 0.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.003

    def raised(self, t: float, steps: int) -> float:
        """Return the time t + gamma t to which noise is added before a step of `steps`."""
        inside = self.s_min <= t <= self.s_max
        return t * (1 + (min(self.s_churn / steps, math.sqrt(2) - 1) if inside else 0.0))


def heun(
    denoise: Denoise, noise: Noise, times: Sequence[float], *, churn: Churn | None = None
) -> Iterator[Step]:
    """Heun's method for the PF ODE, two evaluations per step, one for a step to 0.

    Karras et al. 2022, Algorithm 2. churn: None for the deterministic Algorithm 1.
    """
    churn, pairs = churn or Churn(), _descending_pairs(times)
    x = pairs[0][0] * noise(0)
    for index, (t, s) in enumerate(pairs, 1):
        if (raised := churn.raised(t, len(pairs))) > t:
            x = x + math.sqrt(raised**2 - t**2) * churn.s_noise * noise(index)
        step = heun_step if s > 0 else euler_step
        x = step(denoise, x, full(x, raised), full(x, s))
        yield Step(x, s)


def dpm_solver_2(denoise: Denoise, noise: Noise, times: Sequence[float]) -> Iterator[Step]:
    """DPM-Solver-2, two evaluations per step, one for a step to 0.  Lu et al. 2022, Algorithm 1.

    With sigma(t) = t and alpha = 1, the step uses the slope at the geometric mean of t and s.
    """
    pairs = _descending_pairs(times)
    x = pairs[0][0] * noise(0)
    for t, s in pairs:
        if s == 0:
            x = euler_step(denoise, x, full(x, t), full(x, s))
        else:
            middle = math.sqrt(t * s)
            x_middle = euler_step(denoise, x, full(x, t), full(x, middle))
            x = x + (s - t) * slope(denoise, x_middle, full(x, middle))
        yield Step(x, s)


def euler_ancestral(denoise: Denoise, noise: Noise, times: Sequence[float]) -> Iterator[Step]:
    """Ancestral sampling, one evaluation per step: the reverse Markov chain of the diffusion.

    An Euler step to sqrt(s^2 - up^2) = s^2/t, then noise up = s sqrt(t^2 - s^2)/t, the standard deviation of
    x_s given x_t and x.  Song et al. 2021, appendix F (VE); Ho et al. 2020.
    """
    pairs = _descending_pairs(times)
    x = pairs[0][0] * noise(0)
    for index, (t, s) in enumerate(pairs, 1):
        up = s * math.sqrt(t**2 - s**2) / t
        x = euler_step(denoise, x, full(x, t), full(x, s**2 / t))
        if up > 0:
            x = x + up * noise(index)
        yield Step(x, s)


def full(x: Images, t: float) -> Times:
    """Return the time t for each of the images x: (b,), of their type and device."""
    return x.new_full((len(x),), t)


def ascending(times: Sequence[float]) -> list[float]:
    """Return the times as numbers. Raises ValueError when they do not ascend, or are fewer than two."""
    listed = [float(t) for t in times]
    if len(listed) < 2 or listed[0] < 0 or any(low >= high for low, high in itertools.pairwise(listed)):
        raise ValueError(f"times must ascend from at least 0, two or more of them, not {listed}")
    return listed


def _descending_pairs(times: Sequence[float]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(turned(ascending(times))))
