"""The cluster's interface for Python: training and sweeps, from a notebook or a script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cm_ray.api.run import Run
from cm_ray.api.train import data_settings, recipe_for
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.sweeps import run_sweep
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.cluster.training.run import train as train_recipe
from cm_ray.data.cached_shards import as_shards
from cm_ray.evaluation.reference import Shards
from cm_ray.own_code import Code, allow
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import DataSettings
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.remote_run import place_of
from cm_ray.settings.tree import override
from cm_ray.sweeps.options import Sweep
from cm_ray.sweeps.space import Space


def train(
    recipe: str | Recipe,
    data: Any = None,
    *,
    num_workers: int | str = 0,
    out: str | Path = "",
    size: int = 0,
    steps: int = 0,
    changes: Mapping[str, Any] | None = None,
    own_code: Code | Iterable[Code] = (),
) -> Run:
    """Train to the last step by Ray Train, and return the finished run.

    The same call goes on after a kill. recipe, data, out, size, steps, changes, own_code: as in
    `cm_ray.train`; images in memory are written to shards in the cache first. num_workers: training workers
    (or a range, such as "2:8"), else the recipe's. A cluster that this process is connected to is used, else
    that of RAY_ADDRESS, else one on this machine. Raises UserError on bad input, before the first step.
    """
    allow(own_code)
    with connected():
        given = _given(recipe, data, size, changes or {})
        chosen = recipe if isinstance(recipe, Recipe) else _named(recipe, given, changes or {})
        more: dict[str, Any] = {"steps": steps} if steps else {}
        if num_workers:
            more["cluster.num_workers"] = num_workers
        chosen = override(chosen, {**given, **(changes or {}), **more})
        place = place_of(out or chosen.run_dir, chosen.name)
        train_recipe(replace(chosen, run_dir=place))
    return Run(place)


def _given(recipe: str | Recipe, data: Any, size: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the data, by dotted path; images in memory become shards as they are wanted."""
    if data is None:
        return {"data.size": size} if size else {}
    settings = data_settings(recipe.data if isinstance(recipe, Recipe) else DataSettings(), changes)
    wanted = replace(settings, size=size or settings.size)
    return {"data.path": as_shards(data, wanted.read_options), "data.size": wanted.size}


def _named(name: str, given: Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe by its name, or by the word of a method for the images that are given."""

    def images() -> Shards | None:
        if "data.path" not in given:
            return None
        return Shards(*prepare_shards(data_settings(DataSettings(), {**given, **changes})))

    return recipe_for(name, images)


def sweep(
    space: str | Path | Space,
    *,
    out: str | Path = "",
    changes: Mapping[str, Any] | None = None,
    own_code: Code | Iterable[Code] = (),
    **options: Any,
) -> RunDirectory:
    """Search for settings by Ray Tune and Optuna, and return the sweep's directory with report.md.

    space: the name of a search space of cm_ray, the path of a Python file with a SPACE, or a `Space`. out:
    the directory; the same call goes on with the sweep in it. changes: settings of all trials by dotted path.
    own_code: as in `cm_ray.train`. options: those of the command, such as trials=20, seeds=2,
    searcher="random". Raises UserError on bad input.
    """
    allow(own_code)
    name = "space" if isinstance(space, Space) else str(space)
    settings = Sweep(space=name, run_dir=str(out), **options)
    return run_sweep.sweep(settings, changes or {}, space if isinstance(space, Space) else None)
