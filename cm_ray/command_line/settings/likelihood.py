"""Settings of the command that computes likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import UserError
from cm_ray.recipes.measuring import JobOnData


@dataclass(frozen=True, kw_only=True)
class LikelihoodSettings(JobOnData):
    """Compute the exact likelihood of images under a diffusion model: cm-ray likelihood runs/edm_digits

    Song et al. 2021 (Score SDE), section 4.3: the density along the probability flow ODE, solved for every
    image with its own steps, on Ray. --run-dir gets likelihood.csv, a row for each image, likelihood.json,
    the mean in bits per dimension with its key, and samples/extremes.png, the least and the most likely
    images. The same command goes on after an interruption.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory, model folder, models:/NAME@ALIAS, or a directory of diffusers, of a diffusion model."""
    data: str = ""
    """Images, as in training; empty: those that MODEL's run was trained on. Likelihoods of images that were
    trained on are no test."""
    images: int = 0
    """Number of images, a random part of the data; 0: all, 10,000 at most."""
    probes: int = 1
    """Random vectors that estimate the trace of the Jacobian; 0: the exact trace, by a backward pass for
    each value of an image."""
    rtol: float = 1e-5
    """Relative tolerance of the ODE's solver."""
    atol: float = 1e-5
    """Absolute tolerance of the ODE's solver."""
    seed: int = 0
    """Seed of the noise that makes 8-bit pixels continuous, and of the probes."""
    batch_size: int = 64
    """Images per network evaluation."""

    def __post_init__(self) -> None:
        """Raise UserError, naming the option, on a number that is out of its range."""
        ReadOptions.__post_init__(self)
        for name, least in {"images": 0, "probes": 0, "seed": 0, "batch_size": 1}.items():
            if (number := getattr(self, name)) < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {number}.")
        for name in ("rtol", "atol"):
            if not 1e-12 <= getattr(self, name) < 1:
                raise UserError(f"--{name} must be in [1e-12, 1), not {getattr(self, name):g}.")
