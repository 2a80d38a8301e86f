"""What scores are measured with and of: features, the images compared with, models by their names."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from cm_ray.cluster.pool.pool import Opener, SamplerPool
from cm_ray.data.shards import Manifest, load_all
from cm_ray.errors import UserError
from cm_ray.metrics.extractors.registry import EXTRACTORS, Extractor
from cm_ray.metrics.measures import SampleSet
from cm_ray.networks.model import SPEC
from cm_ray.recipes.measuring import MeasuringSettings
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import DataSettings, EvaluationSettings
from cm_ray.runs.console import say, shown
from cm_ray.runs.directory import RunDirectory
from cm_ray.scoring.evaluator import extractor_opener
from cm_ray.scoring.reference import keep_features, keep_statistics, kept_features, kept_statistics
from cm_ray.tracking.store import check_uri


@dataclass(frozen=True, slots=True)
class Yardstick:
    """An extractor, and where the images are that it compares with."""

    opener: Opener
    extractor: Extractor
    """On the CPU: for its key, and for what needs no actor."""
    data: DataSettings


def yardstick(settings: MeasuringSettings, run: Recipe | None) -> Yardstick:
    """Return what to measure with, as the settings say, else as the run of the model did.

    Raises UserError when neither says it, or the extractor cannot be opened.
    """
    if not settings.data and run is None:
        raise UserError("Compared with which images? --data takes a folder, or the name of a data set.")
    data = run.data if run and not settings.data else DataSettings(path=settings.data)
    if settings.size:
        data = replace(data, size=settings.size)
    evaluation = EvaluationSettings(extractor=settings.extractor)
    if run and not settings.extractor:
        evaluation = run.evaluation
    if settings.weights:
        evaluation = replace(evaluation, weights=settings.weights)
    if settings.resizing != MeasuringSettings.resizing:
        evaluation = replace(evaluation, resizing=settings.resizing)
    if evaluation.extractor in ("", "none"):
        raise UserError(
            f"By which features? --extractor takes one of {', '.join(EXTRACTORS)}, or package.module:factory."
        )
    opener = extractor_opener(evaluation)
    assert opener is not None
    return Yardstick(opener, opener("cpu"), data)


def run_of(model: Path) -> Recipe | None:
    """Return the settings of the run that a model's folder lies in; None when it lies in none."""
    run = RunDirectory(model.parent)
    return run.config() if run.config_file.is_file() else None


def tracking_uris(settings: MeasuringSettings) -> tuple[str, str]:
    """Return where MLflow is told of the work, and where models:/ names are: they are read with "none", too.

    Empty stands for the places that `Group` and `fetch_model` choose. Raises UserError on an address that
    MLflow does not take.
    """
    told = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if told not in ("", "none"):
        check_uri(told)
    return told, "" if told == "none" else told


def name_of(source: str) -> str:
    """Return what to call it: demo of runs/demo and of runs/demo/model, NAME-3 of models:/NAME/3."""
    if source.startswith("models:"):
        return source.removeprefix("models:").strip("/").replace("/", "-")
    path = Path(source).expanduser().absolute()
    if path.is_file():
        return path.stem
    return path.parent.name if path.name == "model" and (path / SPEC).is_file() else path.name


def reference_set(
    pool: SamplerPool, shards: Path, manifest: Manifest, extractor: Extractor, needs: Collection[str]
) -> SampleSet:
    """Return what scores need of all images of a folder of shards, from the cache or from the pool.

    needs: of statistics, features and images, those that the samples are compared by; statistics come with
    all but images alone.
    """
    groups = kept_statistics(manifest, extractor)
    features = kept_features(manifest, extractor) if "features" in needs else None
    missing: set[Literal["images", "features", "statistics"]] = set()
    if groups is None and {*needs} != {"images"}:
        missing.add("statistics")
    if "features" in needs and features is None:
        missing.add("features")
    if missing:
        say(f"features of {manifest.source}, once for this extractor:")
        with shown("image") as progress:
            (made,) = pool.read(shards, manifest, frozenset(missing), progress)
        if made.statistics is not None:
            groups = made.statistics
            keep_statistics(manifest, extractor, groups)
        if made.features is not None:
            features = made.features
            keep_features(manifest, extractor, features)
    images = torch.from_numpy(load_all(shards, manifest)[0]) if "images" in needs else None
    return SampleSet(groups=[groups] if groups else [], features=features, images=images)
