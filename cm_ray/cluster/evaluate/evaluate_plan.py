"""What an evaluation is asked to do, and the model that its source is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.core.samplers import Sampler
from cm_ray.data.open_source import open_source
from cm_ray.data.shards import is_shard_folder
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.measuring import MeasuringSettings
from cm_ray.sampling.model_sampler import sampler_of
from cm_ray.sampling.multistep import multistep_of
from cm_ray.tracking.locate import find_model


@dataclass(frozen=True, kw_only=True)
class Evaluation(MeasuringSettings):
    """What to score, and how."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A model (run directory, model folder, models:/NAME@ALIAS, file of weights, directory of diffusers), or
    images: a folder of them, Parquet or shards, an .npz, the name of a data set."""
    scores: tuple[Literal["FD", "FDinf", "KID", "IS", "precision", "recall", "SWD"], ...] = ("FD",)
    """Fréchet distance (FID, if it is one), extrapolated to infinitely many samples, kernel distance,
    Inception score, improved precision and recall, sliced Wasserstein distance."""
    samples: int = 0
    """How many samples of a model; 0: as many as there are images to compare with."""
    samplers: tuple[str, ...] = ()
    """How to sample: one-step, multistep@2.0,0.8, multistep:4, heun:18 …; empty: the model's own sampler, and
    its own time points."""
    seed: int = 1
    """Seed of the noise and the labels. Checkpoints are chosen on a run's seed, 0 if it is not set."""
    keep: Literal["none", "npz", "shards"] = "none"
    """Whether the samples are kept: as OpenAI's tools want them, or as shards, to be read as data."""
    grid: int = 10
    """Samples per side of a grid picture."""


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model, and how to sample from it."""

    folder: Path
    spec: ModelSpec
    samplers: list[Sampler]


def evaluated_model(settings: Evaluation, tracking_uri: str) -> EvaluatedModel | None:
    """Return the model that the source is; None when it is none.

    Raises UserError on samplers that do not fit it.
    """
    folder = find_model(settings.source, tracking_uri)
    if folder is None:
        return None
    spec = load_model(folder).spec
    own = [spec.sampler, *(multistep_of(taus, spec.diffusion) for taus in spec.time_points)]
    samplers = [sampler_of(spec, text) for text in settings.samplers] or own
    return EvaluatedModel(folder, spec, list(dict.fromkeys(samplers)))


def check_evaluation(settings: Evaluation, *, is_model: bool) -> None:
    """Raise UserError, naming the setting, on what cannot be evaluated."""
    source, samples = settings.source, settings.samples
    for holds, sentence in [
        (bool(settings.scores), "--scores needs at least one, such as FD"),
        (settings.seed >= 0, f"--seed must be at least 0, not {settings.seed}"),
        (settings.grid >= 1, f"--grid must be at least 1, not {settings.grid}"),
        (settings.batch_size >= 1, f"--batch-size must be at least 1, not {settings.batch_size}"),
        (
            samples == 0 or samples >= 2,
            f"--samples must be at least 2 for a score, or 0 for as many as there are images, not {samples}",
        ),
        (
            is_model or (samples == 0 and not settings.samplers and settings.keep == "none"),
            f"{source} is no model, and --samples, --samplers and --keep are for models: leave them out",
        ),
    ]:
        if not holds:
            raise UserError(sentence + ".")
    if not is_model and not is_shard_folder(Path(source).expanduser()):
        open_source(source)  # a mistyped name need not wait for Ray
