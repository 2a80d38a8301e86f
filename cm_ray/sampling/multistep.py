"""Samplers in a few steps with given time points, with those of a model, or with default ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeAlias, TypeVar

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.times import NoiseLevels, turned
from cm_ray.errors import UserError
from cm_ray.sampling.samplers import Jumps, Multistep, OneStep, PointSampler

TimePoints: TypeAlias = tuple[tuple[float, ...], ...]
"""Descending time points of sampling for some NFE, with k - 1 points for k evaluations."""
_Kind = TypeVar("_Kind", bound=PointSampler)


def sampler_with(taus: tuple[float, ...], diffusion: Diffusion) -> OneStep | PointSampler:
    """Return the sampler of a model with these descending time points; the one-step sampler without points.

    A model of two times jumps, and a consistency function of one is sampled in multiple steps. Raises
    UserError when they do not descend between t_max and t_min.
    """
    return jumps_of(taus, diffusion) if diffusion.two_times else multistep_of(taus, diffusion)


def sampler_for(nfe: int, diffusion: Diffusion, time_points: TimePoints = ()) -> OneStep | PointSampler:
    """Return the sampler of a model with `nfe` evaluations, by the model's time points or default ones."""
    kind = jumps_for if diffusion.two_times else multistep_for
    return kind(nfe, diffusion, time_points)


def multistep_of(taus: tuple[float, ...], levels: NoiseLevels) -> OneStep | Multistep:
    """Return the multistep sampler with these time points; the one-step sampler without points.

    Raises UserError when they do not descend between t_max and t_min.
    """
    return _made(Multistep, taus, levels)


def multistep_for(nfe: int, levels: NoiseLevels, time_points: TimePoints = ()) -> OneStep | Multistep:
    """Return the sampler with `nfe` network evaluations, with the model's time points or a Karras grid's."""
    return multistep_of(_known(nfe, time_points) or _karras_taus(nfe, levels), levels)


def jumps_of(taus: tuple[float, ...], levels: NoiseLevels) -> OneStep | Jumps:
    """Return the jumps that end at these time points and at 0; the one-step sampler without points.

    Raises UserError when they do not descend between t_max and t_min.
    """
    return _made(Jumps, taus, levels)


def jumps_for(nfe: int, levels: NoiseLevels, time_points: TimePoints = ()) -> OneStep | Jumps:
    """Return `nfe` jumps, with the model's time points, or with equal steps of t/(1 + t), as in MeanFlow."""
    last = levels.t_max / (1 + levels.t_max)
    even = [last * (1 - index / nfe) for index in range(1, nfe)]
    points = _known(nfe, time_points) or _short((u / (1 - u) for u in even), levels)
    return jumps_of(points, levels)


def _made(kind: type[_Kind], taus: tuple[float, ...], levels: NoiseLevels) -> OneStep | _Kind:
    ladder = (levels.t_max, *taus, levels.t_min)
    if any(not high > low for high, low in itertools.pairwise(ladder)):
        between = f"between {levels.t_max:g} and {levels.t_min:g}"
        raise UserError(f"Time points must descend {between}, not {list(taus)}.")
    return kind(taus=taus) if taus else OneStep()


def _known(nfe: int, time_points: TimePoints) -> tuple[float, ...] | None:
    return {len(taus) + 1: taus for taus in time_points}.get(nfe)


def _karras_taus(nfe: int, levels: NoiseLevels) -> tuple[float, ...]:
    """Return the inner points of a grid."""
    return _short(turned(levels.grid(nfe + 1).tolist()[1:-1]), levels)


def _short(times: Iterable[float], levels: NoiseLevels) -> tuple[float, ...]:
    """Return times with the fewest digits that distinguish them, for short texts."""
    exact = tuple(times)
    for digits in (3, 6):
        rounded = [float(f"{tau:.{digits}g}") for tau in exact]
        if len({*rounded, levels.t_min, levels.t_max}) == len(exact) + 2:
            return tuple(rounded)
    return exact
