"""Scoring in a line: a model, or images, against a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cm_ray.api.average_warning import warn_of_average
from cm_ray.api.run import Run
from cm_ray.api.trained_model import TrainedModel
from cm_ray.api.weak_models import Weak
from cm_ray.data.image_set import ImageSet
from cm_ray.data.interface.agreement import check_comparable
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.drawing.batches import batch_on
from cm_ray.drawing.model_labels import scored_labels
from cm_ray.drawing.requests import Request, sample_units
from cm_ray.drawing.samples import Samples
from cm_ray.errors import UserError, whole
from cm_ray.evaluation.score_here import score_images
from cm_ray.evaluation.scorer import sample_count
from cm_ray.evaluation.statistics_file import StatisticsFile, is_statistics_file
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.score import Score
from cm_ray.networks.arithmetic import Precision
from cm_ray.own_code import Code, allow, is_name
from cm_ray.recipes.sections import DataSettings, EvaluationSettings, Resizing
from cm_ray.sampling.samplers import Sampler

Reference = ImageSet | StatisticsFile


def score(
    scored: Any,
    data: Any = None,
    *,
    kinds: str | Sequence[str] = ("FD",),
    n: int = 0,
    steps: int = 0,
    sampler: str | Sampler = "",
    weak: Weak = None,
    labels: str = "",
    extractor: str | Extractor = "",
    weights: str = "",
    resizing: Resizing = "legacy_tensorflow",
    size: int = 0,
    channels: Literal[0, 1, 3] = 0,
    background: str = "",
    seed: int = 1,
    batch_size: int = 0,
    precision: Precision = "float32",
    own_code: Code | Iterable[Code] = (),
) -> dict[str, Score]:
    """Return a score of a model's samples, or of images, for each kind, with its standard error and its key.

    scored: a model, a run, or images in any form that `load_images` takes. data: the images to compare with;
    of a run, by default its own. kinds: FD (FID, if it is one), FDinf, KID, SWD, IS, precision, recall. n:
    number of samples; 0: that of the images, 50,000 at most. steps, sampler, weak, precision, batch_size: of
    `sample`. labels: classes of samples: data (as often as there), balanced, null, or names, as cat,dog.
    extractor: see docs/scores.md. weights, resizing: its own. size, channels, background: of reading images.
    These three, labels, extractor: by default the run's. own_code: see `load`. Raises UserError on misfits.
    """
    run = _run_of(scored, n, steps, sampler, weak, labels, precision)
    wanted = ReadOptions(size=size, channels=channels, background=background)
    reference, kinds = _reference(data, run, wanted), (kinds,) if isinstance(kinds, str) else kinds
    extractor = _extractor(extractor, weights, resizing, run, own_code)
    if not isinstance(scored, TrainedModel):
        return _score_given(_loaded(scored, wanted, reference), reference, extractor, kinds, seed)
    unit = batch_on(scored.device, whole("batch_size", batch_size, 0), scored.spec, precision)
    how: Any = {"seed": seed, "unit": unit, "precision": precision, "channels": channels}
    how |= {"count": sample_count(n, reference.count), "sampler": scored.sampler(sampler, steps, weak=weak)}
    return _score_model(scored, labels, Request(**how), reference, extractor, kinds)


def _score_given(
    given: ImageSet, reference: Reference, extractor: Extractor, kinds: Sequence[str], seed: int
) -> dict[str, Score]:
    return score_images(given.blocks, given.count, reference, extractor, kinds, seed=seed)


def _run_of(
    scored: Any,
    n: int,
    steps: int,
    sampler: str | Sampler,
    weak: Weak,
    labels: str,
    precision: Precision,
) -> Run | None:
    """Return the run that is scored, if it is one.

    Raises UserError on options of sampling when images are scored.
    """
    asked = (n, steps, sampler, weak, labels, precision)
    if not isinstance(scored, TrainedModel) and asked != (0, 0, "", None, "", "float32"):
        raise UserError(
            "n, steps, sampler, weak, labels and precision are for models, and images are scored: leave them "
            "out."
        )
    return scored if isinstance(scored, Run) else None


def _score_model(
    scored: TrainedModel,
    labels: str,
    request: Request,
    reference: Reference,
    extractor: Extractor,
    kinds: Sequence[str],
) -> dict[str, Score]:
    warn_of_average(scored)
    c, h, w = scored.spec.shape
    _check_shapes((request.channels or c, h, w), reference)
    own = scored.recipe.evaluation.labels if isinstance(scored, Run) else ""
    request = replace(request, labels=scored_labels(scored.spec, reference, labels or own))
    return score_images(
        partial(sample_units, scored.torch_model, request),
        request.count,
        reference,
        extractor,
        kinds,
        seed=request.seed,
        sampler=request.sampler,
        labels=request.labels_text,
        precision=request.precision,
    )


def _loaded(scored: Any, wanted: ReadOptions, reference: Reference) -> ImageSet:
    """Return the images to score. Raises UserError when they differ in shape from those of the reference."""
    images = load_images(scored.tensor() if isinstance(scored, Samples) else scored, **asdict(wanted))
    _check_shapes(images.shape, reference)
    return images


def _reference(data: Any, run: Run | None, wanted: ReadOptions) -> Reference:
    """Return the images to compare with, or statistics of them: those given, or the run's own."""
    settings = run.recipe.data if run else DataSettings()
    given = settings.path if data is None else data
    if data is None and not settings.path:
        raise UserError("Scores compare with images: pass data.")
    if is_statistics_file(given) and wanted == ReadOptions():
        return StatisticsFile(Path(given).expanduser())
    reference = load_images(given, **asdict(settings.updated(wanted).read_options))
    if run and data is None:
        trained_on = run.directory.lineage()["data.fingerprint"]
        if wanted == ReadOptions() and reference.fingerprint != trained_on:
            raise UserError(f"{run.name} was trained on other images than those of {given}: pass data.")
    return reference


def _extractor(
    name: str | Extractor, weights: str, resizing: Resizing, run: Run | None, own_code: Code | Iterable[Code]
) -> Extractor:
    """Return the extractor of a name; without one, that of the run's recipe with its settings, or FID's."""
    allow(own_code)
    if not isinstance(name, str):
        return name
    if is_name(name):
        allow(name)
    own = run.recipe.evaluation if run and not name else None
    if own is None or own.extractor == "none":
        return open_extractor(name or "inception-2015", weights=weights, resizing=resizing)
    if resizing == EvaluationSettings().resizing:
        resizing = own.resizing
    return open_extractor(own.extractor, weights=weights or own.weights, resizing=resizing)


def _check_shapes(shape: tuple[int, int, int], reference: Reference) -> None:
    """Raise UserError when images (c, h, w) are compared with others of another shape."""
    if isinstance(reference, StatisticsFile):
        return
    check_comparable(
        "The scored images",
        shape,
        f"those of {reference.source}",
        reference.shape,
        size="set size, or give other images",
        channels="set channels to 1 to compare both as grey, or to 3 to compare both as RGB",
    )
