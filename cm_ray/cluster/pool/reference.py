"""The extractor and the reference images of a score, from settings or from the run of the model."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cm_ray.cluster.pool.actor import Opener
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.result import Output, SampleResult
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.data.shards.manifest import Manifest, load_all
from cm_ray.errors import UserError, setting
from cm_ray.evaluation.from_settings import extractor_opener
from cm_ray.evaluation.reference import (
    Shards,
    keep_features,
    keep_statistics,
    kept_features,
    kept_statistics,
)
from cm_ray.evaluation.scorer import MOST_SAMPLES
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.extractors.registry import EXTRACTORS
from cm_ray.metrics.score_kinds import SampleSet
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import SPEC, ModelSpec
from cm_ray.recipes.measuring import JobOnData, MeasuringSettings
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import DataSettings, EvaluationSettings
from cm_ray.runs.console import say, shown
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.labels import DATA
from cm_ray.tracking.store import check_uri


@dataclass(frozen=True, slots=True)
class ScoringSetup:
    """The extractor and the reference images that scores are computed with."""

    opener: Opener
    extractor: Extractor
    """The extractor on the CPU, for its key and for small computations of the driver."""
    data: DataSettings
    """The reference images."""
    labels: str
    """The draw of the samples' labels; see `cm_ray.drawing.model_labels.scored_labels`."""


def scoring_setup(settings: MeasuringSettings, run: Recipe | None) -> ScoringSetup:
    """Return the extractor and the data of the settings; those of the model's run where they are not set.

    Raises UserError when neither sets them, or when the extractor cannot be opened.
    """
    data = reference_data(settings, run)
    evaluation = EvaluationSettings(extractor=settings.extractor)
    if run and not settings.extractor:
        evaluation = run.evaluation
    if settings.weights:
        evaluation = replace(evaluation, weights=settings.weights)
    if settings.resizing != MeasuringSettings.resizing:
        evaluation = replace(evaluation, resizing=settings.resizing)
    if evaluation.extractor in ("", "none"):
        raise UserError(
            f"No feature extractor is given; set {setting('extractor')} to one of "
            f"{', '.join(EXTRACTORS)}, or to "
            "package.module:factory."
        )
    opener = extractor_opener(evaluation)
    assert opener is not None
    labels = settings.labels or (run.evaluation.labels if run else "") or DATA
    return ScoringSetup(opener, opener("cpu"), data, labels)


def reference_data(settings: JobOnData, run: Recipe | None) -> DataSettings:
    """Return the images that a model is put together with: those of the settings, or of the model's run.

    Raises UserError when neither names any.
    """
    if not settings.data and run is None:
        raise UserError(
            f"The images are not given; set {setting('data')} to a folder or to the name of a data set."
        )
    data = run.data if run and not settings.data else DataSettings(path=settings.data)
    return data.updated(settings)


COMPARE_CHANNELS = f"set {setting('channels')} to 1 to compare both as grey, or to 3 to compare both as RGB"
"""Instruction for grey images that are to be compared with RGB ones."""


def scored_shape(model: ModelSpec, settings: MeasuringSettings) -> tuple[int, int, int]:
    """Return the shape (c, h, w) of the samples of a model that are scored."""
    c, h, w = model.shape
    return settings.channels or c, h, w


def run_of(model: Path) -> Recipe | None:
    """Return the settings of the run that a model's folder belongs to; None when it belongs to none."""
    run = RunDirectory(model.parent)
    return run.config() if run.config_file.is_file() else None


def tracking_uris(settings: JobOnData) -> tuple[str, str]:
    """Return the MLflow URI that results are logged to, and the URI that models:/ names are read from.

    They differ when tracking is off ("none"): models are then still read. An empty URI stands for the
    defaults of `RunGroup` and `fetch_model`. Raises UserError on a URI that MLflow does not accept.
    """
    tracking = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracking not in ("", "none"):
        check_uri(tracking)
    return tracking, "" if tracking == "none" else tracking


def name_of(source: str) -> str:
    """Return a short name of a source: demo for runs/demo and runs/demo/model, NAME-3 for models:/NAME/3."""
    if source.startswith("models:"):
        return source.removeprefix("models:").strip("/").replace("/", "-")
    path = Path(source).expanduser().absolute()
    if path.is_file():
        return path.stem
    return path.parent.name if path.name == "model" and (path / SPEC).is_file() else path.name


def reference_set(
    pool: SamplerPool, shards: Path, manifest: Manifest, extractor: Extractor, needs: Collection[str]
) -> SampleSet:
    """Return the reference set of a folder of shards; what is not cached is computed on the pool.

    needs: the parts of the set that scores need, among "statistics", "features" and "images". Statistics are
    of all images, and are always included, unless images alone are needed; features and images are those of
    the first 50,000 rows, which are a random part of the images.
    """
    groups = [] if {*needs} == {"images"} else [statistics_on(pool, shards, manifest, extractor)]
    part = min(manifest.count, MOST_SAMPLES)
    return SampleSet(
        groups=groups,
        features=_features(pool, shards, manifest, extractor, part) if "features" in needs else None,
        images=_images(shards, manifest, part) if "images" in needs else None,
        drawn_from=manifest.count if part < manifest.count else 0,
    )


def statistics_on(
    pool: SamplerPool, shards: Path, manifest: Manifest, extractor: Extractor
) -> FeatureStatistics:
    """Return the statistics of all images of a folder of shards, from the cache or computed on the pool."""
    found = kept_statistics(manifest, extractor)
    if found is None:
        found = _read(pool, shards, manifest, "statistics", manifest.count).statistics
        assert found is not None
        keep_statistics(manifest, extractor, found)
    return found


def prepare_statistics(opener: Opener, actors: Actors, shards: Path, manifest: Manifest) -> None:
    """Compute the statistics of all images of a folder of shards on actors, if they are not in the cache."""
    extractor = opener("cpu")
    if kept_statistics(manifest, extractor) is None:
        with SamplerPool(opener, actors) as pool:
            statistics_on(pool, shards, manifest, extractor)


def _features(pool: SamplerPool, shards: Path, manifest: Manifest, extractor: Extractor, part: int) -> Tensor:
    found = kept_features(manifest, extractor, part)
    if found is None:
        found = _read(pool, shards, manifest, "features", part).features
        assert found is not None
        keep_features(manifest, extractor, found)
    return found


def _read(pool: SamplerPool, shards: Path, manifest: Manifest, output: Output, most: int) -> SampleResult:
    of = f"{most:,} images of " if most < manifest.count else ""
    say(f"features of {of}{manifest.source}, computed once for this extractor:")
    with shown("image") as progress:
        (result,) = pool.read(shards, manifest, frozenset([output]), progress, most=most)
    return result


def _images(shards: Path, manifest: Manifest, part: int) -> Tensor:
    if part == manifest.count:
        return torch.from_numpy(load_all(shards, manifest)[0])
    images, missing = [], part
    for block in Shards(shards, manifest).blocks():
        images.append(block[:missing])
        missing -= len(images[-1])
        if not missing:
            break
    return torch.cat(images)
