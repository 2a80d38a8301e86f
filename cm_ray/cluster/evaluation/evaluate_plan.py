"""Checks of the settings of an evaluation, and the model that it scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cm_ray.command_line.settings.score import Evaluation
from cm_ray.data.open_source import open_source
from cm_ray.data.shards import is_shard_folder
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.sections import DataSettings
from cm_ray.sampling.samplers import Sampler
from cm_ray.tracking.locate import find_model


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model and its samplers."""

    folder: Path
    spec: ModelSpec
    samplers: list[Sampler]


def evaluated_model(settings: Evaluation, tracking_uri: str) -> EvaluatedModel | None:
    """Return the model that the source names; None when the source is not a model.

    Raises UserError on samplers that do not fit the model.
    """
    folder = find_model(settings.source, tracking_uri)
    if folder is None:
        return None
    spec = load_model(folder).spec
    own = ("own", *(f"multistep:{len(taus) + 1}" for taus in spec.time_points))
    samplers = dict.fromkeys(sampler_of(spec, text) for text in settings.samplers or own)
    return EvaluatedModel(folder, spec, list(samplers))


def scored_data(settings: Evaluation) -> DataSettings:
    """Return the images that are scored; the split of the settings is that of the ones to compare with."""
    return replace(DataSettings(path=settings.source).updated(settings), split="")


def check_evaluation(settings: Evaluation, *, is_model: bool) -> None:
    """Raise UserError unless the source is a model, or is readable images without settings of models."""
    source = settings.source
    if is_model:
        return
    if settings.samples or settings.samplers or settings.keep != "none" or settings.labels:
        raise UserError(
            f"{source} is not a model; leave out {setting('samples')}, {setting('samplers')}, "
            f"{setting('labels')} and {setting('keep')}, which are for models."
        )
    if not is_shard_folder(Path(source).expanduser()):
        open_source(source)  # a mistyped name is an error before Ray starts
