"""What a search for time points is asked to do, and what that means for a model."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from cm_ray.cluster.pool.reference import Yardstick
from cm_ray.core.samplers import Multistep, OneStep
from cm_ray.errors import UserError
from cm_ray.metrics.frechet import bias_warning
from cm_ray.networks.formats.reading import read_model
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.measuring import MeasuringSettings
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.console import say
from cm_ray.sampling.multistep import multistep_of
from cm_ray.time_points.greedy import Points
from cm_ray.time_points.openai_indices import taus
from cm_ray.time_points.racing import ZONE
from cm_ray.time_points.sample_budget import Effort
from cm_ray.time_points.smooth import TOLERANCE

_MOST_GRID, _GRID = 201, 40


@dataclass(frozen=True, kw_only=True)
class TimePointSearch(MeasuringSettings):
    """What to search, and how."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A consistency model: run directory, model folder, models:/NAME@ALIAS, file of weights or directory of
    diffusers, which is copied into the run directory."""
    steps: int = 2
    """Search the time points for 2, 3 … this many network evaluations."""
    grid: int = 0
    """Boundaries N of the Karras grid whose inner ones are the candidates (paper: 18, 40, 151, 201); 0: as
    many as the model's run trained on at last, at most 201, or 40."""
    spend: Literal["smooth", "raced", "fixed"] = "smooth"
    """How samples are spent. smooth: few, where a smooth curve through all scores is unsure of its minimum;
    raced: each decision of --method takes more only while it is open; fixed: --budget for every candidate."""
    method: Literal["ternary", "fibonacci", "sections", "exhaustive"] = "ternary"
    """Of raced and fixed: ternary is the paper's; fibonacci takes the fewest evaluations, sections as many a
    round as there are actors, exhaustive all of them."""
    budget: int = 10_000
    """Most samples for a candidate; the confirmation takes others, up to as many again."""
    probes: int = 0
    """Candidates at once, of sections and of ternary's looking ahead; 0: as many as there are actors."""
    first: int = 0
    """Samples to begin with; 0: a sixteenth of the budget, or more than the extractor has features."""
    sweeps: int = 1
    """How often, after each new point, all points are refined."""
    tolerance: float = TOLERANCE
    """Expected regret, in the score's unit, at which smooth ends."""
    zone: float = ZONE
    """Difference, in the score's unit, that raced does not tell apart."""
    seed: int = 2
    """Seed of the noise and the labels of the search; the found points are scored on the next one's."""
    update: bool = True
    """Write the points into the model, and register it as a new version if it was registered."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings with all defaults filled in."""

    settings: TimePointSearch
    spec: ModelSpec
    grid: int
    effort: Effort

    @classmethod
    def of(cls, settings: TimePointSearch, folder: Path, run: Recipe | None, measure: Yardstick) -> Plan:
        """Fill in the defaults. Raises UserError on settings that do not fit the model or each other."""
        spec, _ = read_model(folder)
        if spec.diffusion.boundary == "none":
            raise UserError(f"{settings.model} is a diffusion model: time points are a consistency model's.")
        _check(settings)
        dim = measure.extractor.dim
        first = settings.first or min(settings.budget, max(settings.budget // 16, dim + dim // 4))
        if warning := bias_warning(first, dim):
            say(f"warning: a search from {first} samples on: {warning}")
        effort = Effort(first=first, budget=settings.budget)
        grid = settings.grid or min(_MOST_GRID, _last_grid(run))
        if grid < settings.steps + 1:
            raise UserError(
                f"A grid of {grid} has no room for {settings.steps - 1} points between its ends: take --grid "
                f"{settings.steps + 1} or more."
            )
        return cls(settings, spec, grid, effort)

    def sampler(self, points: Points) -> OneStep | Multistep:
        """Return the sampler with points of the grid; without points, that of one step."""
        return multistep_of(self.taus(points), self.spec.diffusion)

    def taus(self, points: Points) -> tuple[float, ...]:
        """Return the times of points, descending."""
        diffusion = self.spec.diffusion
        return taus(points, self.grid, t_min=diffusion.t_min, t_max=diffusion.t_max, rho=diffusion.rho)

    def to_dict(self) -> dict[str, Any]:
        """Return, as JSON values, what decides the outcome."""
        kept = dataclasses.asdict(self.settings)
        for name in ("actors", "run_dir", "tracking_uri", "update", "model", "weights"):
            del kept[name]
        return kept | {"grid": self.grid, "first": self.effort.first}


def _check(settings: TimePointSearch) -> None:
    """Raise UserError, naming the setting, on what no model could be searched with."""
    if settings.steps < 2:
        raise UserError(f"--steps {settings.steps} has no time points to search: give 2 or more.")
    least = {"batch_size": 1, "budget": 2, "grid": 0, "first": 0, "probes": 0, "sweeps": 0, "seed": 0}
    for name, low in least.items():
        if (number := getattr(settings, name)) < low:
            raise UserError(f"--{name.replace('_', '-')} must be at least {low}, not {number}.")
    if settings.first == 1:
        raise UserError("--first must be at least 2 for a score, or 0 for its default, not 1.")
    for name in ("tolerance", "zone"):
        number = getattr(settings, name)
        if not (math.isfinite(number) and number >= 0):
            raise UserError(f"--{name} must be a number of 0 or more, not {number}.")


def _last_grid(run: Recipe | None) -> int:
    """Return N(K), the boundaries of the grid that training ended with; 151 if there was none."""
    scales = run.method.times.scales if run else None
    return scales(run.steps, run.steps) if run and scales else _GRID
