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


def plan_edit(
    task: Task,
    diffusion: Diffusion,
    shape: tuple[int, int, int],
    *,
    steps: int = 0,
    taus: tuple[float, ...] = (),
    factor: int = 0,
    sigma: float = 0.0,
) -> Edit:
    """Return an edit for models with this diffusion and images of `shape` (c, h, w).

    steps: number of evaluations on a Karras grid; 0 for the default, 39. taus: descending times of the
    evaluations, instead of steps; the default of stroke is the paper's. factor: for upscale; 0 for 2.
    sigma: for denoise, the noise level of the input (standard deviation, for images in [-1, 1]). Raises
    UserError when settings exclude each other, or do not fit the task or the model.
    """
    if task not in get_args(Task):
        raise UserError(f"There is no task {task!r}: {closest(str(task), list(get_args(Task)))}")
    _check_belonging(task, steps, taus, factor, sigma)
    if task != "denoise" and diffusion.boundary == "none":
        raise UserError(f"{task} is for consistency models, and this is a diffusion model; it can denoise.")
    if task == "colorize" and shape[0] != 3:
        raise UserError(
            "colorize is for models of colour images, and this one makes grey ones; give another."
        )
    if task == "upscale":
        factor = factor or 2
        _check_factor(factor, shape)
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
    if diffusion.boundary == "none":
        return ["denoise"]
    cannot = {"colorize"} if shape[0] != 3 else set()
    cannot |= set() if factors(shape) else {"upscale"}
    return [task for task in get_args(Task) if task not in cannot]


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


def _check_factor(factor: int, shape: tuple[int, int, int]) -> None:
    known, (_, h, w) = factors(shape), shape
    if factor not in known:
        advice = (
            f"give one of {', '.join(map(str, known))}" if known else "no factor does; choose another task"
        )
        raise UserError(f"A factor of {factor} does not divide images of {w}x{h} pixels; {advice}.")


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
