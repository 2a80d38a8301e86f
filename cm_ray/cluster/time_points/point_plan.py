"""Settings of a search for time points, with the defaults that depend on the model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_ray.cluster.pool.reference import ScoringSetup
from cm_ray.command_line.settings.time_points import TimePointSearch
from cm_ray.errors import UserError, setting
from cm_ray.metrics.frechet import bias_warning
from cm_ray.networks.formats.reading import read_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.console import say
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.multistep import sampler_with
from cm_ray.sampling.samplers import OneStep, PointSampler
from cm_ray.storage.files import read_json
from cm_ray.storage.shapes import Shape
from cm_ray.time_points.greedy import Points
from cm_ray.time_points.openai_indices import taus
from cm_ray.time_points.sample_budget import SampleBudget

_MOST_GRID, _GRID = 201, 40
_SETTING: Shape = (str, float, bool, [(str, float)])
SEARCH: Shape = {
    **dict.fromkeys(("reference", "model", "network"), str),
    "extractor": [str],
    "at_once?": int,
    str: _SETTING,
}
"""The shape of search.json: the settings of a search, what it began with, and the candidates at once."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The settings of a search, with all defaults filled in."""

    settings: TimePointSearch
    spec: ModelSpec
    grid: int
    budget: SampleBudget

    @classmethod
    def of(
        cls, settings: TimePointSearch, folder: Path, run: Recipe | None, setup: ScoringSetup
    ) -> SearchPlan:
        """Fill in the defaults. Raises UserError on settings that do not fit the model or each other."""
        spec, _ = read_model(folder)
        if spec.diffusion.boundary == "none":
            raise UserError(
                f"{settings.model} is a diffusion model, and only consistency models have time points; give "
                "a consistency model."
            )
        warn_of_initial_weights(spec, settings.model)
        dim = setup.extractor.dim
        first = settings.first or min(settings.budget, max(settings.budget // 16, dim + dim // 4))
        if warning := bias_warning(first, dim):
            say(f"warning: the search starts with {first} samples: {warning}")
        budget = SampleBudget(first=first, full=settings.budget)
        grid = settings.boundaries or min(_MOST_GRID, _last_grid(run))
        if grid < settings.nfe + 1:
            raise UserError(
                f"A grid of {grid} boundaries has no room for {settings.nfe - 1} points between its ends; "
                f"set {setting('boundaries')} to {settings.nfe + 1} or more."
            )
        return cls(settings, spec, grid, budget)

    def sampler(self, points: Points) -> OneStep | PointSampler:
        """Return the sampler with these points of the grid; without points, the sampler of one step."""
        return sampler_with(self.taus(points), self.spec.diffusion)

    def taus(self, points: Points) -> tuple[float, ...]:
        """Return the times of points of the grid, descending."""
        diffusion = self.spec.diffusion
        return taus(points, self.grid, t_min=diffusion.t_min, t_max=diffusion.t_max, rho=diffusion.rho)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that decide the result of the search, as JSON values."""
        kept = dataclasses.asdict(self.settings)
        for name in ("actors", "run_dir", "tracking_uri", "update", "model", "weights"):
            del kept[name]
        return kept | {"boundaries": self.grid, "first": self.budget.first}


def read_search(run: RunDirectory) -> dict[str, Any]:
    """Return what is recorded of a search in its directory. Raises UserError when the file is damaged."""
    found: dict[str, Any] = read_json(run.search_file, SEARCH)
    return found


def _last_grid(run: Recipe | None) -> int:
    """Return N(K), the number of boundaries of the grid at the end of training; 40 without such a grid."""
    scales = run.method.times.scales if run else None
    return scales(run.steps, run.steps) if run and scales else _GRID
