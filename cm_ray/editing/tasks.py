"""Tasks of editing images with a trained model, and the settings that make one possible."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.times import turned
from cm_ray.editing.replacement import GRID, STROKE_TIMES
from cm_ray.errors import UserError

Task: TypeAlias = Literal["inpaint", "colorize", "upscale", "stroke", "denoise"]
"""Inpainting, colorization, super-resolution, stroke-guided generation, denoising at a known level."""

MOST_STEPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A task with its times; `plan_edit` makes one that fits a model."""

    task: Task
    times: tuple[float, ...]
    """Ascending: t_min, then the time of every evaluation, the first one last."""
    factor: int = 1
    """Width and height of the result of upscale, over those of the known image."""


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
    """Return a task for models with these times and images of `shape` (c, h, w).

    steps: evaluations, on a Karras grid; 0 for the default, 39. taus: descending times of the evaluations
    instead; by default a stroke's are the paper's. factor: of upscale, 0 for 2. sigma: the noise level
    (standard deviation, of images in [-1, 1]) that denoise finds in its input. Raises UserError when they
    exclude each other or do not fit the task or the model.
    """
    _check_belonging(task, steps, taus, factor, sigma)
    if task != "denoise" and diffusion.boundary == "none":
        raise UserError(f"{task} is for consistency models, and this is a diffusion model: it can denoise.")
    if task == "colorize" and shape[0] != 3:
        raise UserError("colorize is for models of colour images, and this one makes grey ones.")
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


def factors(shape: tuple[int, int, int]) -> list[int]:
    """Return the factors by which images of this shape can be upscaled."""
    common = math.gcd(*shape[1:])
    return [factor for factor in range(2, common + 1) if common % factor == 0]


def _check_belonging(task: Task, steps: int, taus: tuple[float, ...], factor: int, sigma: float) -> None:
    if factor and task != "upscale":
        raise UserError(f"A factor goes with upscale, not with {task}: leave it out.")
    if sigma and task != "denoise":
        raise UserError(f"A noise level sigma goes with denoise, not with {task}: leave it out.")
    if task == "denoise" and (steps or taus):
        raise UserError("denoise is one evaluation at sigma: leave steps and taus out.")
    if task == "stroke" and steps:
        raise UserError("stroke takes time points, taus, and no steps: the first one says how far it may go.")
    if steps and taus:
        raise UserError("Give one of steps and taus.")
    if not 0 <= steps <= MOST_STEPS or len(taus) > MOST_STEPS:
        raise UserError(f"Take 1 to {MOST_STEPS} steps or taus, not {steps or len(taus)}.")


def _check_factor(factor: int, shape: tuple[int, int, int]) -> None:
    known, (_, h, w) = factors(shape), shape
    if factor not in known:
        give = f"take {', '.join(map(str, known))}" if known else "it has none"
        raise UserError(f"A factor of {factor} does not divide images of {w}x{h} pixels: {give}.")


def _checked(task: Task, taus: tuple[float, ...], diffusion: Diffusion) -> tuple[float, ...]:
    what = "The noise level sigma" if task == "denoise" else "The first of taus"
    if not diffusion.t_min < taus[0] <= diffusion.t_max:
        raise UserError(
            f"{what} must be above {diffusion.t_min:g} and at most {diffusion.t_max:g}, not {taus[0]:g}."
        )
    ladder = (*taus, diffusion.t_min)
    if any(not high > low for high, low in itertools.pairwise(ladder)):
        raise UserError(f"taus must descend and stay above {diffusion.t_min:g}, not be {list(taus)}.")
    return turned(ladder)
