"""Checks of the settings of an evaluation, and the model that it scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cm_ray.cluster.pool.reference import COMPARE_CHANNELS, ScoringSetup
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.data.interface.agreement import check_comparable
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import is_shard_folder
from cm_ray.drawing.autoguidance import guide
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.errors import UserError, setting
from cm_ray.evaluation.reference import Shards
from cm_ray.evaluation.statistics_file import StatisticsFile, is_statistics_file
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.sections import DataSettings
from cm_ray.sampling.sampler import Sampler
from cm_ray.sampling.text import parse
from cm_ray.tracking.locate import find_model, locate_model


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model and its samplers."""

    folder: Path
    spec: ModelSpec
    samplers: list[Sampler]
    weak: Path | None = None
    """Folder of the weaker model that guides it; None: there is none."""


def evaluated_model(settings: Evaluation, tracking_uri: str) -> EvaluatedModel | None:
    """Return the model that the source names; None when the source is not a model.

    Raises UserError on samplers that do not fit the model.
    """
    folder = find_model(settings.source, tracking_uri)
    if folder is None:
        return None
    model = load_model(folder)
    spec, digest = model.spec, ""
    weak = locate_model(settings.weak, tracking_uri) if settings.weak else None
    if weak is not None:
        digest = guide(model, load_model(weak), settings.weak)
    own = [spec.sampler, *(sampler_of(spec, steps=len(taus) + 1) for taus in spec.time_points)]
    samplers = dict.fromkeys([_guided(spec, text, digest) for text in settings.samplers] or own)
    if digest and not any(sampler.is_guided for sampler in samplers):
        raise UserError(f"{setting('weak')} is for samplers with guidance; give heun:18,guidance=2, say.")
    return EvaluatedModel(folder, spec, list(samplers), weak)


def _guided(spec: ModelSpec, text: str, digest: str) -> Sampler:
    """Return the sampler of a text; digest: of the weaker model that guides, if the text has guidance."""
    scaled = parse(text, spec.diffusion, own=spec.sampler, time_points=spec.time_points).is_guided
    return sampler_of(spec, text, weak=digest if scaled else "")


def scored_data(settings: Evaluation) -> DataSettings:
    """Return the images that are scored; the split of the settings is that of the ones to compare with."""
    return replace(DataSettings(path=settings.source).updated(settings), split="")


def check_evaluation(settings: Evaluation, *, is_model: bool) -> None:
    """Raise UserError unless the source is a model, or is readable images without settings of models."""
    source = settings.source
    if is_model:
        return
    if settings.samples or settings.samplers or settings.keep != "none" or settings.labels or settings.weak:
        raise UserError(
            f"{source} is not a model; leave out {setting('samples')}, {setting('samplers')}, "
            f"{setting('labels')}, {setting('weak')} and {setting('keep')}, which are for models."
        )
    if not is_shard_folder(Path(source).expanduser()):
        open_source(source)  # a mistyped name is an error before Ray starts


def scored_against(setup: ScoringSetup, kinds: Sequence[str]) -> Shards | StatisticsFile:
    """Return the images to compare with, or the published statistics of their features.

    Raises UserError when statistics are of another extractor, or do not tell one of the kinds of scores.
    """
    if not is_statistics_file(setup.data.path):
        return Shards(*prepare_shards(setup.data))
    if setup.data.read_options != ReadOptions():
        raise UserError(
            f"{setup.data.path} holds statistics of features, which options of reading images do not change: "
            "leave them out."
        )
    file = StatisticsFile(Path(setup.data.path).expanduser().absolute())
    file.check(setup.extractor, kinds)
    return file


def check_scored(settings: Evaluation, shape: tuple[int, int, int], count: int, against: Shards) -> None:
    """Raise UserError when images or samples are too few, or of another shape than those to compare with."""
    check_comparable(
        f"The images of {settings.source}",
        shape,
        f"those of {against.source}",
        against.shape,
        size=f"set {setting('size')}, or give other {setting('data')}",
        channels=COMPARE_CHANNELS,
    )
    if min(count, against.count) < 2:
        raise UserError(
            f"A score needs at least two images on each side, but {settings.source} gives "
            f"{count}, and {against.source} has {against.count}; give more images."
        )


def in_words(against: Shards | StatisticsFile) -> str:
    """Return a phrase for what is compared with."""
    if isinstance(against, StatisticsFile):
        return f"the statistics in {against.path}"
    return f"{against.count} images of {against.source}"
