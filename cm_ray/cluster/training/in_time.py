"""A training that chooses its settings: a teacher and its distillation, or consistency training, in time.

The config.json of each run is the record of what was chosen, so that the same command goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from cm_ray.budget.speed import measured_speed
from cm_ray.budget.time_plan import START_S, Plan, Speed, measured, plan_for, reserve_s, steps_in
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import WorkerPlan, plan_workers
from cm_ray.cluster.training.run import train
from cm_ray.data.glimpse import glimpse
from cm_ray.data.survey import Survey
from cm_ray.data.take_survey import take_survey
from cm_ray.networks.model import from_uint8
from cm_ray.phases import phase
from cm_ray.recipes.automatic import (
    AutoTraining,
    DataFacts,
    distilled_from,
    lasting,
    student_for,
    with_changes,
)
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import ClusterSettings, DataSettings
from cm_ray.runs.console import say
from cm_ray.runs.remote_run import open_place, place_of
from cm_ray.settings.tree import override


def train_automatically(asked: AutoTraining) -> None:
    """Choose settings, say them, and train; the same call goes on with what was chosen.

    Raises UserError as `cm_ray.budget.time_plan.plan_for` and `cm_ray.cluster.training.run.train`.
    """
    began = time.monotonic()
    with connected():
        survey = take_survey(asked.data.path, asked.data.read_options)
        say(str(survey))
        data = facts_of(asked.data, survey)
        place = place_of(asked.changes.get("run_dir", ""), asked.changes.get("name") or _name(data))
        given = {"run_dir": place, **_without(asked.changes, "run_dir")}
        if recorded := _recorded(place):
            return train(with_changes(recorded, given))
        workers = _workers(asked.changes)
        torch.set_num_threads(workers.threads)
        device = "cuda" if workers.use_gpu else "cpu"
        speed = partial(measured_speed, device=device)
        teacher = _recorded(f"{place}-teacher")
        if teacher is None:
            plan = plan_for(data, lambda: 3600 * asked.hours - time.monotonic() + began, speed, given, device)
            say(str(plan))
            if len(plan.stages) == 1:
                return train(plan.stages[0].recipe)
            teacher = override(plan.stages[0].recipe, {"run_dir": f"{place}-teacher"})
        spent = _train_teacher(teacher, began)
        return train(_student(teacher, data, 3600 * asked.hours - spent, speed, given, device))


def planned(asked: AutoTraining, survey: Survey) -> Plan:
    """Return the plan of a training on this machine alone, without Ray; survey: of its images."""
    data = facts_of(asked.data, survey)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    speed = partial(measured_speed, device=device)
    return plan_for(data, lambda: 3600 * asked.hours, speed, asked.changes, device)


def facts_of(settings: DataSettings, survey: Survey) -> DataFacts:
    """Return the facts that decide a recipe for images, of which about a thousand are read."""
    phase("looking at the images")
    seen = glimpse(settings.path, settings.read_options)
    deviation = float(from_uint8(seen.block).std())
    return DataFacts(
        path=settings.path,
        count=survey.count,
        shape=seen.shape,
        classes=len(seen.class_names),
        sigma_data=deviation,
    )


def _train_teacher(teacher: Recipe, began: float) -> float:
    """Train the teacher to its end; return the seconds that were spent, also before a resumption."""
    train(teacher)
    return max(time.monotonic() - began, _trained_s(teacher) + START_S)


def _trained_s(recipe: Recipe) -> float:
    """Return the seconds that all steps of a run took, by its log."""
    rows = open_place(recipe.run_dir).read_metrics()
    return float(max(row["seconds"] for row in rows if "seconds" in row))


def _student(
    teacher: Recipe,
    data: DataFacts,
    seconds: float,
    speed: Speed,
    given: Mapping[str, Any],
    device: str,
) -> Recipe:
    """Return the recipe of the distillation, with the steps that the rest of the time is enough for.

    Where steps of the teacher took more or less time than they are measured to take, so will these.
    """
    recipe = student_for(data, teacher.network, teacher.batch_size)
    recipe = with_changes(distilled_from(recipe, teacher.run_dir), given)
    stage = measured(recipe, data, speed, given, device)
    ratio = _trained_s(teacher) / teacher.steps / speed(teacher, data)
    steps = steps_in(seconds - reserve_s(seconds, 1), ratio * stage.step_s)
    say(f"  distillation  {steps:,} steps in the {seconds / 60:.1f} min that are left")
    return with_changes(lasting(stage.recipe, steps), given)


def _recorded(place: str) -> Recipe | None:
    """Return the recipe of a run that has begun."""
    run = open_place(place)
    return run.config() if run.config_file.is_file() else None


def _workers(changes: Mapping[str, Any]) -> WorkerPlan:
    prefix = "cluster."
    cluster = {path.removeprefix(prefix): value for path, value in changes.items() if path.startswith(prefix)}
    return plan_workers(override(ClusterSettings(), cluster), node_resources())


def _name(data: DataFacts) -> str:
    return f"auto_{data.shape[1]}"


def _without(changes: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name != path}
