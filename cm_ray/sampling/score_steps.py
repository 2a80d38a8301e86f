"""Loops of the samplers of score-based models: annealed Langevin dynamics, predictor-corrector, the ODE.

As those of `cm_ray.sampling.sampling_steps` they are generators of steps, ``loop(denoise, noise, times,
...)``, and times ascend. The score is (D - x)/t^2 of a denoiser D. What the papers' codes take from a whole
batch, the norms of the Langevin corrector and the steps of the adaptive solver, is each sample's own here,
so that a sample does not depend on its batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from cm_ray.core.likelihood import decode
from cm_ray.core.ode import Tolerance
from cm_ray.core.sde import SDES, Space
from cm_ray.core.times import NoiseLevels, turned
from cm_ray.core.types import Denoise, Images, Noise, Times, per_sample
from cm_ray.sampling.sampling_steps import Step, ascending, full

if TYPE_CHECKING:
    from torch import Tensor

Predictor = Literal["reverse-diffusion", "euler-maruyama", "ancestral"]
PutBack = Callable[[Images, float, Images], Images]
"""A function (x, t, noise) that returns x with its known part put back, as it is at t with this noise."""


def annealed_langevin(
    denoise: Denoise,
    noise: Noise,
    times: Sequence[float],
    *,
    repeats: int,
    step_size: float,
    put_back: PutBack | None = None,
) -> Iterator[Step]:
    """Annealed Langevin dynamics.  Song & Ermon 2019, Algorithm 1; Song & Ermon 2020, Algorithm 1.

    times: the levels, two or more, and 0 before them for the final denoising step. At each level t `repeats`
    steps x + a s(x, t) + sqrt(2 a) z with a = step_size t^2, as in the codes of both papers. put_back: called
    after each of them, as in Algorithm 2 of NCSN.
    """
    levels = turned(ascending(times))
    draws = itertools.count(1)
    known = _knowing(put_back, lambda: noise(next(draws)))
    x = known(levels[0] * noise(0), levels[0])
    for index, t in enumerate(levels):
        if t == 0:
            x = known(denoise(x, full(x, levels[index - 1])), t)
        else:
            for _ in range(repeats):
                towards = denoise(x, full(x, t)) - x
                x = x + step_size * towards + math.sqrt(2 * step_size) * t * noise(next(draws))
                x = known(x, t)
        if index:
            yield Step(x, t)


class Stage(NamedTuple):
    """A step of a predictor from t to s, in the space y = alpha x of an SDE."""

    t: float
    s: float
    alpha: float
    """Scale of the clean images at t."""
    alpha_s: float
    """Scale at s."""
    drift: float
    """The drift f at t, times the step of the SDE's time."""
    spread: float
    """g^2 at t, times the step of the SDE's time."""


def stages(times: Sequence[float], space: Space) -> list[Stage]:
    """Return the predictor's steps over ascending times.

    A last step to 0, where an SDE may have no time, has the length of the one before. Raises ValueError when
    the times do not ascend.
    """
    t = torch.tensor(turned(ascending(times)), dtype=torch.float64)
    sde, to_zero = SDES[space], bool(t[-1] == 0)
    above = t[:-1] if to_zero else t
    u = sde.time(above)
    lengths = u[:-1] - u[1:]
    if to_zero:
        lengths = torch.cat([lengths, lengths[-1:] if len(lengths) else u.new_ones(1)])
    u = u[: len(lengths)]
    columns = (t[:-1], t[1:], sde.alpha(t[:-1]), sde.alpha(t[1:]), sde.drift(u) * lengths)
    table = torch.stack([*columns, sde.diffusion_squared(u) * lengths], 1)
    return [Stage(*row) for row in table.tolist()]


def predictor_corrector(
    denoise: Denoise,
    noise: Noise,
    times: Sequence[float],
    *,
    space: Space = "ve",
    predictor: Predictor = "reverse-diffusion",
    corrections: int = 1,
    snr: float = 0.16,
    put_back: PutBack | None = None,
) -> Iterator[Step]:
    """Predictor-corrector sampling.  Song et al. 2021, Algorithms 1 to 5 and appendix G.

    Each step corrects the images at t by `corrections` steps of Langevin dynamics, and predicts those at s.
    The last prediction has no noise. space: of the SDE that is discretised; images are x_t outside of it.
    put_back: called after every correction and prediction, as in appendix I.2 (inpainting, colorization).
    """
    draws, plan = itertools.count(1), stages(times, space)
    known = _knowing(put_back, lambda: noise(next(draws)))
    x = known(plan[0].t * noise(0), plan[0].t)
    for index, stage in enumerate(plan):
        last = index == len(plan) - 1
        for _ in range(corrections):
            x = known(_corrected(denoise, x, stage, noise(next(draws)), snr, space), stage.t)
        mean, std = _PREDICTORS[predictor](stage, stage.alpha * x, denoise(x, full(x, stage.t)), space)
        x = (mean if last or not std else mean + std * noise(next(draws))) / stage.alpha_s
        x = known(x, stage.s)
        yield Step(x, stage.s)


def adaptive_ode(
    denoise: Denoise, noise: Noise, times: Sequence[float], *, tolerance: Tolerance
) -> Iterator[Step]:
    """The probability flow ODE by an adaptive solver of order 5(4), in float64.

    Song et al. 2021, section 4.3.
    times: t_min and t_max, and 0 before them for a final denoising step. Every sample has its own steps.
    """
    *zero, low, high = ascending(times)
    start = noise(0)

    def rows(x: Images, t: Times, rows: Tensor) -> Images:
        """Evaluate the whole batch, since labels belong to its places, and return some rows."""
        everywhere = torch.zeros_like(start)
        everywhere[rows] = x.to(start)
        levels = full(start, high)
        levels[rows] = t.to(start)
        return denoise(everywhere, levels)[rows]

    x = decode(rows, start, NoiseLevels(t_min=low, t_max=high), tolerance).state.to(start)
    yield Step(x, low)
    if zero:
        yield Step(denoise(x, full(x, low)), 0.0)


def _knowing(put_back: PutBack | None, fresh: Callable[[], Images]) -> Callable[[Images, float], Images]:
    """Return a function (x, t) that puts back what is known, with new noise; without any, it draws none."""
    if put_back is None:
        return lambda x, t: x
    return lambda x, t: put_back(x, t, fresh())


def _corrected(denoise: Denoise, x: Images, stage: Stage, noise: Images, snr: float, space: Space) -> Images:
    """A Langevin step whose length follows from a signal-to-noise ratio.  Song et al. 2021, Algorithms 4, 5.

    The step a = 2 c (snr |z|/|score|)^2 is that of y; c is 1 for VE, and 1 - beta for VP and sub-VP.
    """
    score = (denoise(x, full(x, stage.t)) - x) / (stage.alpha * stage.t**2)
    ratio = snr * noise.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1).clamp(min=1e-30)
    kept = 1.0 if space == "ve" else (stage.alpha / stage.alpha_s) ** 2
    step = per_sample(2 * kept * ratio**2, x)
    return x + (step * score + (2 * step).sqrt() * noise) / stage.alpha


def _reverse_diffusion(stage: Stage, y: Images, clean: Images, space: Space) -> tuple[Images, float]:
    """Discretise the reverse SDE as the forward one is.  Song et al. 2021, appendix E, Eq. 46.

    For VE the forward steps add t^2 - s^2, for VP they are DDPM's; sub-VP's are Euler's.
    """
    if space == "sub-vp":
        return _euler_maruyama(stage, y, clean, space)
    score = _score(stage, y, clean)
    if space == "ve":
        variance = stage.t**2 - stage.s**2
        return y + variance * score, math.sqrt(variance)
    kept = stage.alpha / stage.alpha_s
    beta = 1 - kept**2
    return (2 - kept) * y + beta * score, math.sqrt(beta)


def _euler_maruyama(stage: Stage, y: Images, clean: Images, space: Space) -> tuple[Images, float]:
    """Euler's step of the reverse SDE dy = (f y - g^2 score) du + g dw."""
    return (1 - stage.drift) * y + stage.spread * _score(stage, y, clean), math.sqrt(stage.spread)


def _ancestral(stage: Stage, y: Images, clean: Images, space: Space) -> tuple[Images, float]:
    """The reverse Markov chain: of VE in Song et al. 2021, appendix F; of VP in DDPM (Ho et al. 2020)."""
    score = _score(stage, y, clean)
    if space == "ve":
        variance = stage.t**2 - stage.s**2
        return y + variance * score, math.sqrt(variance) * stage.s / stage.t
    kept = stage.alpha / stage.alpha_s
    beta = 1 - kept**2
    return (y + beta * score) / kept, math.sqrt(beta)


def _score(stage: Stage, y: Images, clean: Images) -> Images:
    """Return the score of y = alpha x_t, whose noise is alpha t."""
    return (stage.alpha * clean - y) / (stage.alpha * stage.t) ** 2


_Predict = Callable[[Stage, Images, Images, Space], tuple[Images, float]]
_PREDICTORS: dict[Predictor, _Predict] = {
    "reverse-diffusion": _reverse_diffusion,
    "euler-maruyama": _euler_maruyama,
    "ancestral": _ancestral,
}
