"""Scoring in a line: a model, or images, against a data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cm_ray.api.run import Run
from cm_ray.api.trained_model import TrainedModel
from cm_ray.core.samplers import Sampler
from cm_ray.data.image_set import ImageSet
from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.score import Score
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import Resizing
from cm_ray.sampling.model_sampler import sampler_of
from cm_ray.sampling.requests import Request, sample_units
from cm_ray.sampling.samples import Samples
from cm_ray.scoring.score_here import score_images


def score(
    scored: Any,
    data: Any = None,
    *,
    kinds: Sequence[str] = ("FD",),
    n: int = 0,
    steps: int = 0,
    sampler: str | Sampler = "",
    extractor: str | Extractor = "",
    weights: str = "",
    resizing: Resizing = "legacy_tensorflow",
    size: int = 0,
    seed: int = 1,
    batch_size: int = 256,
) -> dict[str, Score]:
    """Score a model's samples, or images, against a data set; return a score for each kind.

    Every score has its standard error and its key: only scores of equal keys compare. scored: a model or a
    run, or images in any form that `load_images` takes. data: the images to compare with, in any form; of a
    run, by default its own. kinds: FD (FID, if it is one), FDinf, KID, SWD, IS, precision, recall. n:
    samples; by default as many as there are images to compare with. steps, sampler: as in `sample`.
    extractor: inception-2015 (FID's), clean-fid, cifar-resnet56, cifar-resnet20, digits, your own as
    package.module:factory, or an object; of a run, by default its recipe's. weights, resizing: of the
    extractor. Raises UserError when a kind cannot be had of these images, or weights are missing.
    """
    recipe = scored.recipe if isinstance(scored, Run) else None
    reference = _reference(data, recipe, size)
    if isinstance(extractor, str):
        name = extractor or (recipe.evaluation.extractor if recipe else "") or "inception-2015"
        extractor = open_extractor(name, weights=weights, resizing=resizing)
    if not isinstance(scored, TrainedModel):
        images = load_images(scored.tensor() if isinstance(scored, Samples) else scored, size=size)
        return score_images(images.blocks, images.count, reference, extractor, kinds, seed=seed)
    asked = sampler_of(scored.spec, sampler, steps)
    request = Request(count=n or reference.count, seed=seed, sampler=asked, unit=batch_size)
    blocks = partial(sample_units, scored.torch_model, request)
    return score_images(blocks, request.count, reference, extractor, kinds, seed=seed, sampler=asked)


def _reference(data: Any, recipe: Recipe | None, size: int) -> ImageSet:
    """Return the images to compare with: those given, or the training data of a run."""
    if data is not None:
        return load_images(data, size=size)
    if recipe is None or not recipe.data.path:
        raise UserError("Scores compare with images: pass data.")
    return load_images(recipe.data.path, size=size or recipe.data.size)
