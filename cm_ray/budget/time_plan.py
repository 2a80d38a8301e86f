"""A training that fits into a limited time, with the largest network that sees enough images in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cm_ray.budget.memory import accumulate_for, most_rows
from cm_ray.budget.speed import spec_of
from cm_ray.drawing.batches import free_memory
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import ADM
from cm_ray.networks.model import Model
from cm_ray.recipes.automatic import (
    DataFacts,
    alone_for,
    lasting,
    networks_for,
    student_for,
    teacher_for,
    with_changes,
)
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.choices import word_of

TEACHERS_SHARE = 0.45
"""Share of the training time in which the teacher is trained."""
ENOUGH_IMAGES, IMAGES_PER_WEIGHT = 200_000, 0.25
"""Images that a network has to see at least in each stage, with repetitions, and images for each weight."""
START_S, SHARE_OF_REST = 25.0, 0.03
"""Seconds of a stage for the start of its workers and its last samples, and the share of the whole time for
checkpoints and scores."""
LEAST_S = 180.0
"""A shorter time is refused: starts and samples would take most of it."""
_FREE = 0.8
"""Share of the free memory that a step may use."""
_BATCHES = {"cpu": 128, "cuda": 512}

Speed = Callable[[Recipe, DataFacts], float]
"""A function that returns the seconds of a training step of a recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A training of a plan."""

    recipe: Recipe
    step_s: float
    """Seconds of a step, as measured."""
    parameters: int
    """Number of weights of the network."""

    @property
    def name(self) -> str:
        """The name of the stage in the table."""
        method = word_of(self.recipe.method)
        return {"edm": "teacher", "cd": "distillation"}.get(method, f"training ({method})")

    @property
    def seconds(self) -> float:
        """Seconds of all steps."""
        return self.step_s * self.recipe.steps

    @property
    def images(self) -> int:
        """Images that are seen, with repetitions."""
        return self.recipe.batch_size * self.recipe.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The stages of a training: a teacher and its student, or consistency training alone."""

    data: DataFacts
    seconds: float
    """Time for all of it."""
    stages: tuple[Stage, ...]
    tried: tuple[str, ...]
    """A line for each network whose speed was measured."""

    def __str__(self) -> str:
        """Return a table of what was chosen, with the reasons."""
        return "\n".join(f"  {name:13} {text}" for name, text in self._rows())

    def _rows(self) -> Iterator[tuple[str, str]]:
        data, last = self.data, self.stages[-1]
        c, h, w = data.shape
        labels = f"{data.classes} classes" if data.classes else "no labels"
        yield "images", f"{data.count:,} of {w}x{h}x{c}, {labels}, sigma_data {data.sigma_data:.3f}"
        yield from (("tried", line) for line in self.tried)
        yield "network", f"{_channels(last.recipe)} channels, {last.parameters / 1e6:.2f} M weights"
        for stage in self.stages:
            recipe = stage.recipe
            yield (
                stage.name,
                f"{recipe.steps:,} steps of {recipe.batch_size} images, {stage.step_s:.3f} s each: "
                f"{_minutes(stage.seconds)}, {stage.images / data.count:,.0f} epochs",
            )
        rest = self.seconds - sum(stage.seconds for stage in self.stages)
        yield "beside steps", f"{_minutes(rest)}: starts, checkpoints, samples, scores"
        yield "in all", _minutes(self.seconds)


def plan_for(
    data: DataFacts,
    left: Callable[[], float],
    speed: Speed,
    changes: Mapping[str, Any],
    device: str = "cpu",
) -> Plan:
    """Return the plan for a time: the largest network that sees enough images, and its numbers of steps.

    left: tells how many seconds are left, before and after the speeds have been measured.
    A teacher is trained first where the smallest network sees half of enough images in each stage; else
    consistency training takes all of the time. changes: settings by dotted path that are given; a given
    network is the only one, and given steps are those of the last stage. Raises UserError on less than three
    minutes, SettingError on changes that do not fit.
    """
    seconds = left()
    if seconds < LEAST_S:
        raise UserError(
            f"{setting('hours')} {seconds / 3600:.3g} is too little: {LEAST_S / 3600:g} are needed at least."
        )
    fixed = any(path.partition(".")[0] == "network" for path in changes)
    chosen: tuple[Stage, ...] = ()
    tried: list[str] = []
    for network in networks_for(data)[: 1 if fixed else None]:
        stages = _two_stages(data, network, seconds, speed, changes, device)
        tried.append(_tried(stages))
        if chosen and not _enough(stages):
            break
        chosen = stages
        if not _enough(stages):
            break
    if not _enough(chosen, 0.5):
        chosen = (_alone(data, speed, changes, device),)
    seconds = left()
    *first, last = _timed(chosen, seconds)
    last = dataclasses.replace(last, recipe=with_changes(last.recipe, changes))
    return Plan(data=data, seconds=seconds, stages=(*first, last), tried=tuple(tried))


def steps_in(stage_s: float, step_s: float) -> int:
    """Return the number of steps that a time is enough for; 20 at least."""
    return max(20, math.floor(stage_s / step_s))


def reserve_s(seconds: float, stages: int) -> float:
    """Return the seconds of all stages that are not spent on steps."""
    return stages * START_S + SHARE_OF_REST * seconds


def _two_stages(
    data: DataFacts, network: ADM, seconds: float, speed: Speed, changes: Mapping[str, Any], device: str
) -> tuple[Stage, ...]:
    batch = _BATCHES[device]
    teacher = with_changes(teacher_for(data, network, batch), changes, teacher=True)
    student = with_changes(student_for(data, network, batch), changes)
    stages = measured(teacher, data, speed, {}, device), measured(student, data, speed, changes, device)
    return _timed(stages, seconds)


def _alone(data: DataFacts, speed: Speed, changes: Mapping[str, Any], device: str) -> Stage:
    recipe = with_changes(alone_for(data, networks_for(data)[0], _BATCHES[device]), changes)
    return measured(recipe, data, speed, changes, device)


def _timed(stages: tuple[Stage, ...], seconds: float) -> tuple[Stage, ...]:
    """Return the stages with the steps that their shares of the time are enough for."""
    left = seconds - reserve_s(seconds, len(stages))
    shares = (TEACHERS_SHARE, 1 - TEACHERS_SHARE) if len(stages) == 2 else (1.0,)
    return tuple(
        dataclasses.replace(stage, recipe=lasting(stage.recipe, steps_in(share * left, stage.step_s)))
        for stage, share in zip(stages, shares, strict=True)
    )


def measured(recipe: Recipe, data: DataFacts, speed: Speed, changes: Mapping[str, Any], device: str) -> Stage:
    """Return a stage with its speed, in micro-batches that fit into memory; its steps are still to be set.

    changes: settings that are given. Raises UserError when not even one image fits.
    """
    spec = spec_of(recipe, data)
    if "accumulate" not in changes:
        rows = most_rows(recipe, spec, _FREE * free_memory(device), device)
        if not rows:
            raise UserError(
                f"The memory is too small for the network; give fewer {setting('network.channels')}."
            )
        recipe = dataclasses.replace(recipe, accumulate=accumulate_for(recipe, rows))
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in Model(spec).parameters())
    return Stage(recipe=recipe, step_s=speed(recipe, data), parameters=parameters)


def _enough(stages: tuple[Stage, ...], share: float = 1.0) -> bool:
    return all(stage.images >= share * _wanted(stage) for stage in stages)


def _wanted(stage: Stage) -> float:
    return max(ENOUGH_IMAGES, IMAGES_PER_WEIGHT * stage.parameters)


def _tried(stages: tuple[Stage, ...]) -> str:
    last = stages[-1]
    seen = min(stage.images for stage in stages)
    return (
        f"{last.parameters / 1e6:.2f} M weights: would see {seen:,} images, "
        f"{'enough' if _enough(stages) else f'fewer than {_wanted(last):,.0f}'}"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _channels(recipe: Recipe) -> str:
    return str(getattr(recipe.network, "channels", "own"))
