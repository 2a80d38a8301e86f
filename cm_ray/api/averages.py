"""Averages of a finished run, of any length: their scores, and models of them, in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError
from cm_ray.evaluation.lengths import (
    LengthScoring,
    ScoredLength,
    best_length,
    check_images,
    length_request,
    reachable,
)
from cm_ray.evaluation.scorer import LocalScorer
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.model import Model, ModelSpec, build_model
from cm_ray.own_code import allow, is_name
from cm_ray.recipes.recipe import Recipe
from cm_ray.reports.lengths_report import lengths_table, write_lengths
from cm_ray.runs.console import say
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.snapshots import KeptAverages
from cm_ray.storage.files import remove


class ScoredLengths(list[ScoredLength]):
    """The scores of averages of several lengths on the same noise; it shows itself as a table."""

    @property
    def best(self) -> ScoredLength:
        """The length with the lowest score."""
        return best_length(self)

    def __repr__(self) -> str:
        """Return the table as Markdown."""
        return lengths_table(self)

    _repr_markdown_ = __repr__


def average_model(
    run: RunDirectory, recipe: Recipe, spec: ModelSpec, length: float, step: int, device: torch.device
) -> Model:
    """Return the model whose weights are the average of a length after `step` steps (0: the model's)."""
    kept = _kept(run, recipe, step)
    facts = recipe.average_facts(kept.step) | {"ema_length": length}
    return build_model(dataclasses.replace(spec, **facts), kept.weights(length), run.root, device)


def score_averages(
    run: RunDirectory,
    recipe: Recipe,
    spec: ModelSpec,
    extractor: Extractor,
    *,
    lengths: Sequence[float],
    data: Any,
    step: int,
    device: torch.device,
    **samples: Any,
) -> ScoredLengths:
    """Score averages of a run on the same noise; see `cm_ray.Run.averages`."""
    settings = recipe.data
    given = data is not None
    if not given and not settings.path:
        raise UserError("Scores compare with images: pass data.")
    source = data if given else settings.path
    images = load_images(source, **dataclasses.asdict(settings.read_options))
    check_images(run, spec, images, given=given)

    with run.locked():
        kept = _kept(run, recipe, step)
        scoring = LengthScoring(
            kept=kept,
            spec=spec,
            scorer=LocalScorer(device, extractor),
            data=images,
            request=length_request(recipe, spec, images, **samples),
            say=say,
        )
        wanted = tuple(lengths) or reachable(kept, kept.averages.candidates) or kept.averages.lengths
        scored = ScoredLengths(scoring.scores(wanted))
        remove(run.scoring_work)
        write_lengths(run, scored[0])
    return scored


def extractor_of(extractor: str | Extractor, weights: str, recipe: Recipe, name: str) -> Extractor:
    """Return an extractor by its name, or that of a run's recipe. Raises UserError when there is none."""
    if not isinstance(extractor, str):
        return extractor
    if extractor:
        if is_name(extractor):
            allow(extractor)
        return open_extractor(extractor, weights=weights)
    evaluation = recipe.evaluation
    if evaluation.extractor == "none":
        raise UserError(f"{name} has no extractor to score averages by: pass extractor, or call average.")
    return open_extractor(
        evaluation.extractor, weights=weights or evaluation.weights, resizing=evaluation.resizing
    )


def _kept(run: RunDirectory, recipe: Recipe, step: int) -> KeptAverages:
    return KeptAverages.of(run, recipe, step or run.result()["model_step"])
