"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import UserError
from cm_ray.recipes.measuring import MeasuringSettings


@dataclass(frozen=True, kw_only=True)
class Evaluation(MeasuringSettings):
    """Score a model, or any images, against a data set: cm-ray score runs/demo

    SOURCE is a run directory, a model's folder, models:/NAME@ALIAS, a file of OpenAI's weights, a directory
    of diffusers, or images: a folder of them, Parquet, shards, an .npz, the name of a data set. Samples and
    features are made on Ray. Every score is a row of scores.json with its whole key; it is called FID-50k
    only when it is one. The same command goes on after an interruption.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A model (run directory, model folder, models:/NAME@ALIAS, file of weights, directory of diffusers), or
    images: a folder of them, Parquet or shards, an .npz, the name of a data set."""
    scores: tuple[Literal["FD", "FDinf", "KID", "IS", "precision", "recall", "SWD"], ...] = ("FD",)
    """Fréchet distance (FID, if it is one), extrapolated to infinitely many samples, kernel distance,
    Inception score, improved precision and recall, sliced Wasserstein distance."""
    samples: int = 0
    """Number of samples of a model; 0: as many as there are images to compare with, 50,000 at most."""
    samplers: tuple[str, ...] = ()
    """Samplers: one-step, multistep@2.0,0.8, multistep:4, heun:18, pc:1000,sde=vp, ode …; empty: the
    model's own sampler, and its own time points. Those with guidance=2 are guided."""
    weak: str = ""
    """A weaker diffusion model by which guidance=2 of --samplers guides, named like SOURCE; empty: the model
    itself without the class."""
    seed: int = 1
    """Seed of the noise and the labels. Checkpoints are chosen on a run's seed, 0 if it is not set."""
    keep: Literal["none", "npz", "shards"] = "none"
    """Keep the samples: as OpenAI's tools want them, or as shards, to be read as data."""
    grid: int = 10
    """Samples per side of a grid picture."""

    def __post_init__(self) -> None:
        """Raise UserError, naming the option, on a number that is out of its range."""
        ReadOptions.__post_init__(self)
        if not self.scores:
            raise UserError("--scores needs at least one, such as FD.")
        for name, least in {"seed": 0, "grid": 1, "batch_size": 0}.items():
            if (number := getattr(self, name)) < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {number}.")
        if self.samples != 0 and self.samples < 2:
            raise UserError(
                "--samples must be at least 2 for a score, or 0 for as many as there are images, "
                f"not {self.samples}."
            )
