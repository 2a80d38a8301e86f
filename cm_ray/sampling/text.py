"""How to sample, as a short text: ``one-step``, ``multistep@2.0,0.8``, ``heun:18``, ``pd:4``.

The texts stand on the command line, in configs and in the keys of scores. `parse` makes a `Sampling` of one.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, fields, replace
from functools import partial
from typing import TypeAlias

from cm_ray.core import samplers
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.samplers import Churn, Step
from cm_ray.core.times import karras_times
from cm_ray.core.types import Denoise, Noise
from cm_ray.errors import UserError, closest

ONE_STEP, OWN = "one-step", "own"
TimePoints: TypeAlias = tuple[tuple[float, ...], ...]
"""Descending time points of multistep sampling, for one number of evaluations or more: k - 1 points for k."""
_ODE_SAMPLERS = {
    "heun": samplers.heun,
    "euler": samplers.euler,
    "dpm2": samplers.dpm_solver_2,
    "ancestral": samplers.euler_ancestral,
    "pd": samplers.euler,
}
_TWICE = ("heun", "dpm2")
"""Samplers that evaluate the network twice a step, but for a step to 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """A sampler with its times."""

    text: str
    """As `parse` understands it."""
    name: str
    """multistep, heun, euler, dpm2, ancestral or pd."""
    times: tuple[float, ...]
    """Ascending, t_max last."""
    churn: Churn = field(default_factory=Churn)
    """Heun's stochasticity."""

    @property
    def evaluations(self) -> int:
        """Network evaluations for a sample."""
        steps = len(self.times) - 1
        return 2 * steps - (self.times[0] == 0) if self.name in _TWICE else steps

    @property
    def taus(self) -> tuple[float, ...]:
        """Descending time points between t_max and the end."""
        return self.times[-2:0:-1]

    @property
    def file_name(self) -> str:
        """The text as a part of a file's name."""
        return re.sub(r"[^\w.=-]", "-", self.text)

    def steps(self, denoise: Denoise, noise: Noise) -> Iterator[Step]:
        """Yield the sampler's steps with estimates clipped to [-1, 1]; see `cm_ray.core.samplers`."""
        denoise = samplers.clipped(denoise)
        if self.name == "multistep":
            return samplers.multistep(denoise, noise, self.times)
        sampler = _ODE_SAMPLERS[self.name]
        if self.name == "heun":
            sampler = partial(samplers.heun, churn=self.churn)
        return sampler(denoise, noise, self.times)


def parse(text: str, diffusion: Diffusion, *, own: str = "", time_points: TimePoints = ()) -> Sampling:
    """Return the sampling that a text means for models with these times.

    own: the text that ``own`` stands for. time_points: the model's own, of which ``multistep:k`` takes those
    for k evaluations; if there are none, it takes a Karras grid's. Raises UserError when the text means
    nothing, or not for this kind of model.
    """
    if text == OWN and own:
        return parse(own, diffusion, time_points=time_points)
    name, number, points, options = _split(text)
    multistep = name == "multistep"
    if multistep and diffusion.boundary == "none":
        raise UserError(f"{text} is for consistency models, and this is a diffusion model: try heun:18.")
    if not multistep and diffusion.boundary != "none":
        raise UserError(f"{text} is for diffusion models, and this is a consistency model: try multistep:2.")
    if multistep:
        known = {len(taus) + 1: taus for taus in ((), *time_points)}
        return _multistep(points or known.get(number) or _karras_taus(number, diffusion), diffusion)
    times = _ode_times(name, number, diffusion)
    return Sampling(text=text, name=name, times=times, churn=_churn(text, options))


def _split(text: str) -> tuple[str, int, tuple[float, ...], str]:
    """Return name, number, points and options of NAME:NUMBER[,OPTIONS], multistep@T,T ... or one-step."""
    if text == ONE_STEP:
        return "multistep", 1, (), ""
    match = re.fullmatch(r"([a-z0-9]+)(?::(\d+))?(?:@([\d.,e+-]+))?(?:,([a-z_]+=.*))?", text)
    known = ["multistep", *_ODE_SAMPLERS]
    if match is None or match[1] not in known:
        raise UserError(f"There is no sampler {text!r}: {closest(text.split(':')[0], [ONE_STEP, *known])}")
    name, number, points, options = match.groups(default="")
    if not number and not points:
        raise UserError(f"The sampler {text!r} lacks its steps: write {name}:4, say.")
    if number and (points or int(number) < 1):
        raise UserError(f"The sampler {text!r} must have at least one step, or time points instead.")
    if (points and name != "multistep") or (options and name != "heun"):
        raise UserError(f"The sampler {text!r} takes a number of steps alone: write {name}:4, say.")
    try:
        return name, int(number or 0), tuple(float(t) for t in points.split(",")) if points else (), options
    except ValueError as error:
        raise UserError(f"The time points of the sampler {text!r} are not numbers.") from error


def _multistep(taus: tuple[float, ...], diffusion: Diffusion) -> Sampling:
    ladder = (diffusion.t_max, *taus, diffusion.t_min)
    if any(high <= low for high, low in itertools.pairwise(ladder)):
        raise UserError(
            f"Time points must descend between {ladder[0]:g} and {ladder[-1]:g}, not {list(taus)}."
        )
    text = "multistep@" + ",".join(repr(tau) for tau in taus) if taus else ONE_STEP
    return Sampling(text=text, name="multistep", times=ladder[::-1])


def _karras_taus(evaluations: int, diffusion: Diffusion) -> tuple[float, ...]:
    """Return the inner points of a grid, in as few digits as tell them apart: they stand in texts."""
    times = _grid(evaluations + 1, diffusion)[-2:0:-1]
    for digits in (3, 6):
        rounded = [float(f"{tau:.{digits}g}") for tau in times]
        if len({*rounded, diffusion.t_min, diffusion.t_max}) == evaluations + 1:
            return tuple(rounded)
    return tuple(times)


def _grid(boundaries: int, diffusion: Diffusion) -> list[float]:
    ends = {"t_min": diffusion.t_min, "t_max": diffusion.t_max}
    grid: list[float] = karras_times(boundaries, rho=diffusion.rho, **ends).tolist()
    return grid


def _ode_times(name: str, steps: int, diffusion: Diffusion) -> tuple[float, ...]:
    """Return the grid of `steps` steps: to t_min in progressive distillation, else past it to 0 as in EDM."""
    if name == "pd":
        return tuple(_grid(steps + 1, diffusion))
    return (0.0, *(_grid(steps, diffusion) if steps > 1 else [diffusion.t_max]))


def _churn(text: str, options: str) -> Churn:
    churn, known = Churn(), [option.name for option in fields(Churn)]
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise UserError(f"The sampler {text!r} has an unknown option: {closest(key, known)}")
        try:
            churn = replace(churn, **{key: float(value)})
        except ValueError as error:
            raise UserError(f"{key} of the sampler {text!r} must be a number.") from error
    if not all(math.isfinite(value) and value >= 0 for value in astuple(churn)):
        raise UserError(f"The options of the sampler {text!r} must be finite and not negative.")
    return churn
