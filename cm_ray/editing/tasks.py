"""The editing tasks, and the checks of their settings for a model."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.times import turned
from cm_ray.editing.replacement import GRID, STROKE_TIMES
from cm_ray.errors import UserError, closest, setting
from cm_ray.sampling.samplers import Sampler
from cm_ray.sampling.score_samplers import ConditionalSampler
from cm_ray.sampling.text import parse, text_of

Task: TypeAlias = Literal["inpaint", "colorize", "upscale", "stroke", "denoise"]
"""Inpainting, colorization, super-resolution, stroke-guided generation, denoising at a known level."""

MOST_STEPS = 1000
_STEPS = setting("nfe", python="steps")
"""The number of evaluations, as its reader gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A task with its times; `plan_edit` returns one that fits a model."""

    task: Task
    times: tuple[float, ...]
    """Ascending times: t_min, then the times of the evaluations, the first evaluation last."""
    factor: int = 1
    """For upscale: the factor by which width and height grow."""
    sampler: ConditionalSampler | None = None
    """The sampler of a diffusion model, with its times; None for a consistency model, and for denoise."""

    @property
    def nfe(self) -> int:
        """Number of network evaluations."""
        return self.sampler.nfe if self.sampler else len(self.times) - 1


def plan_edit(
    task: Task,
    diffusion: Diffusion,
    shape: tuple[int, int, int],
    *,
    steps: int = 0,
    taus: tuple[float, ...] = (),
    factor: int = 0,
    sigma: float = 0.0,
    sampler: str | Sampler = "",
) -> Edit:
    """Return an edit for models with this diffusion and images of `shape` (c, h, w).

    steps: number of evaluations, of a consistency model on a Karras grid; 0 for the default, 39. taus:
    descending times of the evaluations, instead of steps; the default of stroke is the paper's. factor: for
    upscale; 0 for 2. sigma: for denoise, the noise level of the input (standard deviation, for images in
    [-1, 1]). sampler: for a diffusion model, instead of steps, pc or langevin; by default pc:100. Raises
    UserError when settings exclude each other, or do not fit the task or the model.
    """
    if task not in get_args(Task):
        raise UserError(f"There is no task {task!r}: {closest(str(task), list(get_args(Task)))}")
    _check_belonging(task, steps, taus, factor, sigma)
    by_scores = diffusion.denoiser and task != "denoise"
    if by_scores:
        _check_by_scores(task, taus)
    elif sampler:
        raise UserError(f"{setting('sampler')} edits by diffusion models, and not denoise; leave it out.")
    factor = _checked_factor(task, factor, shape)
    if by_scores:
        scores = _by_scores(sampler, steps, diffusion)
        return Edit(task=task, times=scores.times(diffusion), factor=factor or 1, sampler=scores)
    if task == "denoise":
        taus = (sigma,)
    elif task == "stroke":
        taus = taus or STROKE_TIMES
    if not taus:
        times = tuple(diffusion.grid((steps or GRID - 1) + 1).tolist())
        return Edit(task=task, times=times, factor=factor or 1)
    return Edit(task=task, times=_checked(task, taus, diffusion), factor=factor or 1)


def supported_tasks(diffusion: Diffusion, shape: tuple[int, int, int]) -> list[Task]:
    """Return the tasks that a model with this diffusion and images of this shape (c, h, w) can do."""
    cannot: set[Task] = {"colorize"} if shape[0] != 3 else set()
    cannot |= {"stroke"} if diffusion.denoiser else set()
    cannot |= set() if factors(shape) else {"upscale"}
    return [task for task in get_args(Task) if task not in cannot]


def _check_by_scores(task: Task, taus: tuple[float, ...]) -> None:
    if task == "stroke" or taus:
        what = "stroke is" if task == "stroke" else f"{setting('taus')} are"
        raise UserError(f"{what} for consistency models, and this is a diffusion model; leave it out.")


def _by_scores(sampler: str | Sampler, steps: int, diffusion: Diffusion) -> ConditionalSampler:
    """Return the sampler of a diffusion model. Raises UserError on one that cannot put back what is known."""
    if sampler and steps:
        raise UserError(f"{setting('sampler')} and {_STEPS} exclude each other; give one of them.")
    if steps == 1:
        raise UserError(f"Each step of a diffusion model is two evaluations; give 4 {_STEPS} or more.")
    default = f"pc:{max(2, steps // 2)}" if steps else "pc:100"
    made = sampler if isinstance(sampler, Sampler) else parse(sampler or default, diffusion)
    if not isinstance(made, ConditionalSampler):
        raise UserError(f"{text_of(made)} cannot put back what is known; give pc:100 or langevin:60, say.")
    return made


def factors(shape: tuple[int, int, int]) -> list[int]:
    """Return the factors by which images of this shape can be upscaled."""
    common = math.gcd(*shape[1:])
    return [factor for factor in range(2, common + 1) if common % factor == 0]


def _check_belonging(task: Task, steps: int, taus: tuple[float, ...], factor: int, sigma: float) -> None:
    if factor and task != "upscale":
        raise UserError(f"{setting('factor')} is for upscale, not for {task}; leave it out.")
    if sigma and task != "denoise":
        raise UserError(f"{setting('sigma')} is for denoise, not for {task}; leave it out.")
    if task == "denoise" and (steps or taus):
        raise UserError(
            f"denoise is one evaluation at {setting('sigma')}; leave {_STEPS} and {setting('taus')} out."
        )
    if task == "denoise" and not sigma:
        raise UserError(f"denoise asks for the noise of the images; give its {setting('sigma')}, as 0.5.")
    if task == "stroke" and steps:
        raise UserError(
            f"stroke takes {setting('taus')} in place of {_STEPS}; the first of them decides how much "
            "may change."
        )
    if steps and taus:
        raise UserError(f"{_STEPS} and {setting('taus')} exclude each other; give one of them.")
    if not 0 <= steps <= MOST_STEPS or len(taus) > MOST_STEPS:
        raise UserError(f"Give 1 to {MOST_STEPS} {_STEPS} or {setting('taus')}, not {steps or len(taus)}.")


def _checked_factor(task: Task, factor: int, shape: tuple[int, int, int]) -> int:
    """Return the factor of upscale, 0 for other tasks. Raises UserError if the images do not fit the task."""
    if task == "colorize" and shape[0] != 3:
        raise UserError(
            "colorize is for models of colour images, and this one makes grey ones; give another."
        )
    if task != "upscale":
        return 0
    known, (_, h, w), factor = factors(shape), shape, factor or 2
    if factor not in known:
        advice = (
            f"give one of {', '.join(map(str, known))}" if known else "no factor does; choose another task"
        )
        raise UserError(f"A factor of {factor} does not divide images of {w}x{h} pixels; {advice}.")
    return factor


def _checked(task: Task, taus: tuple[float, ...], diffusion: Diffusion) -> tuple[float, ...]:
    name = setting("sigma") if task == "denoise" else f"The first of {setting('taus')}"
    if not diffusion.t_min < taus[0] <= diffusion.t_max:
        raise UserError(
            f"{name} must be above {diffusion.t_min:g} and at most {diffusion.t_max:g}, not {taus[0]:g}."
        )
    ladder = (*taus, diffusion.t_min)
    if any(not high > low for high, low in itertools.pairwise(ladder)):
        raise UserError(
            f"{setting('taus')} must descend and stay above {diffusion.t_min:g}, not be {list(taus)}."
        )
    return turned(ladder)
