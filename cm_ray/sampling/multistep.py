"""Multistep samplers with given time points, with those of a model, or with those of a Karras grid."""

from __future__ import annotations

import itertools
from typing import TypeAlias

from cm_ray.core.times import NoiseLevels, turned
from cm_ray.errors import UserError
from cm_ray.sampling.samplers import Multistep, OneStep

TimePoints: TypeAlias = tuple[tuple[float, ...], ...]
"""Descending time points of multistep sampling for some NFE, with k - 1 points for k evaluations."""


def multistep_of(taus: tuple[float, ...], levels: NoiseLevels) -> OneStep | Multistep:
    """Return the sampler with these descending time points; the one-step sampler without points.

    Raises UserError when they do not descend between t_max and t_min.
    """
    ladder = (levels.t_max, *taus, levels.t_min)
    if any(not high > low for high, low in itertools.pairwise(ladder)):
        between = f"between {levels.t_max:g} and {levels.t_min:g}"
        raise UserError(f"Time points must descend {between}, not {list(taus)}.")
    return Multistep(taus) if taus else OneStep()


def multistep_for(nfe: int, levels: NoiseLevels, time_points: TimePoints = ()) -> OneStep | Multistep:
    """Return the sampler with `nfe` network evaluations, with the model's time points or a Karras grid's."""
    known = {len(taus) + 1: taus for taus in time_points}
    return multistep_of(known.get(nfe) or _karras_taus(nfe, levels), levels)


def _karras_taus(nfe: int, levels: NoiseLevels) -> tuple[float, ...]:
    """Return the inner points of a grid, with the fewest digits that distinguish them, for short texts."""
    times = turned(levels.grid(nfe + 1).tolist()[1:-1])
    for digits in (3, 6):
        rounded = [float(f"{tau:.{digits}g}") for tau in times]
        if len({*rounded, levels.t_min, levels.t_max}) == nfe + 1:
            return tuple(rounded)
    return times
