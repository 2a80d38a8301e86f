"""Settings of a search for time points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import UserError
from cm_ray.recipes.measuring import MeasuringSettings
from cm_ray.time_points.racing import ZONE
from cm_ray.time_points.smooth import TOLERANCE


@dataclass(frozen=True, kw_only=True)
class TimePointSearch(MeasuringSettings):
    """Find the time points of multistep sampling: cm-ray time-points runs/demo --nfe 4

    Searches the times between steps by Fréchet distance, on Ray: for 2 network evaluations, then 3 and so on
    up to --nfe. Writes a table, a plot with every evaluation, an MLflow run, and the points into the model:
    from then on `cm-ray sample --nfe 2` takes them. The same command goes on after an interruption, repeating
    nothing.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A consistency model: run directory, model folder, models:/NAME@ALIAS, file of weights or directory of
    diffusers, which is copied into the run directory."""
    nfe: int = 2
    """Search the time points for 2, 3 … this many network evaluations."""
    boundaries: int = 0
    """Boundaries N of the Karras grid, whose inner ones are the candidates (paper: 18, 40, 151, 201); 0: as
    many as the model's run trained on at last, at most 201, or 40."""
    spend: Literal["smooth", "raced", "fixed"] = "smooth"
    """Rule by which samples are spent. smooth: few, where a smooth curve through all scores is unsure of its
    minimum; raced: each decision of --method takes more only while it is open; fixed: --budget for every
    candidate."""
    method: Literal["ternary", "fibonacci", "sections", "exhaustive"] = "ternary"
    """Search of raced and fixed: ternary is the paper's; fibonacci takes the fewest evaluations, sections as
    many a round as there are actors, exhaustive all of them."""
    budget: int = 10_000
    """Most samples for a candidate; the confirmation takes others, up to as many again."""
    probes: int = 0
    """Candidates at once, of sections and of ternary's looking ahead; 0: as many as there are actors."""
    first: int = 0
    """Samples to begin with; 0: a sixteenth of the budget, or more than the extractor has features."""
    passes: int = 1
    """Number of times that all points are refined after each new point."""
    tolerance: float = TOLERANCE
    """Expected regret, in the score's unit, at which smooth ends."""
    zone: float = ZONE
    """Difference, in the score's unit, that raced does not tell apart."""
    seed: int = 2
    """Seed of the noise and the labels of the search; the found points are scored on the next one's."""
    update: bool = True
    """Write the points into the model, and register it as a new version if it was registered."""

    def __post_init__(self) -> None:
        """Raise UserError, naming the option, on a number that is out of its range."""
        ReadOptions.__post_init__(self)
        if self.nfe < 2:
            raise UserError(f"--nfe {self.nfe} has no time points to search: give 2 or more.")
        least = {
            "batch_size": 0,
            "budget": 2,
            "boundaries": 0,
            "first": 0,
            "probes": 0,
            "passes": 0,
            "seed": 0,
        }
        for name, low in least.items():
            if (number := getattr(self, name)) < low:
                raise UserError(f"--{name.replace('_', '-')} must be at least {low}, not {number}.")
        if self.first == 1:
            raise UserError("--first must be at least 2 for a score, or 0 for its default, not 1.")
        for name in ("tolerance", "zone"):
            number = getattr(self, name)
            if not (math.isfinite(number) and number >= 0):
                raise UserError(f"--{name} must be a number of 0 or more, not {number}.")
