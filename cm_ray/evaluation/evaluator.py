"""Scores and sample grids of a model during training; the training data is the reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from cm_ray.core.noise import Purpose, normal
from cm_ray.drawing.model_labels import LabelledImages, scored_labels
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import save_grid
from cm_ray.drawing.requests import Request, sample_units
from cm_ray.evaluation.reference import ScoredAgainst, reference_statistics
from cm_ray.metrics.extractors.extractor import Extractor, statistics_of, statistics_of_batches
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.metrics.score import Score, score_key
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import Model, ModelSpec, to_uint8
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import EvaluationSettings
from cm_ray.sampling.labels import BALANCED, DATA, LabelDraw
from cm_ray.sampling.samplers import Sampler
from cm_ray.sampling.text import text_of


def extractor_opener(evaluation: EvaluationSettings) -> Callable[[torch.device | str], Extractor] | None:
    """Return a function that opens the extractor of the settings on a device; None without an extractor."""
    if not _scored(evaluation):
        return None
    return partial(
        open_extractor, evaluation.extractor, weights=evaluation.weights, resizing=evaluation.resizing
    )


def evaluation_labels(
    evaluation: EvaluationSettings,
    spec: ModelSpec,
    data: LabelledImages,
    say: Callable[[str], object] | None = None,
) -> LabelDraw | None:
    """Return the draw of the labels of a run's samples; None for an unconditional model.

    data: the training data, which is the reference of the scores. say: gets a sentence about the draw. Raises
    UserError when the settings ask for a class that cannot be drawn.
    """
    asked = evaluation.labels or (BALANCED if spec.classes and not _scored(evaluation) else DATA)
    return scored_labels(spec, data, asked, say)


def _scored(evaluation: EvaluationSettings) -> bool:
    return evaluation.extractor != "none"


class Evaluator:
    """Samples from a model on one device and scores it against the training data."""

    def __init__(self, config: Recipe, data: ScoredAgainst, device: torch.device) -> None:
        self.evaluation, self.seed, self.precision = config.evaluation, config.seed, config.precision
        self.data = data
        opener = extractor_opener(self.evaluation)
        self.extractor = opener(device) if opener else None
        if self.extractor:
            self.reference = reference_statistics(data, self.extractor)

    def evaluate(self, model: Model, step: int, folder: Path) -> list[Score]:
        """Save a grid of the first sampler in `folder`; return the scores of all samplers, in order."""
        samplers = [sampler_of(model.spec, text) for text in self.evaluation.samplers]
        grid = self._request(model, samplers[0], self.evaluation.grid**2)
        images = torch.cat(list(sample_units(model, grid)))
        save_grid(
            images,
            folder / f"step-{step:08d}.png",
            columns=self.evaluation.grid,
            classes=grid.drawn_classes(model.spec),
        )
        if self.extractor is None:
            return []
        return [self._score(model, self.extractor, sampler) for sampler in samplers]

    def _request(self, model: Model, sampler: Sampler, count: int) -> Request:
        return Request(
            count=count,
            seed=self.seed,
            sampler=sampler,
            labels=evaluation_labels(self.evaluation, model.spec, self.data),
            unit=self.evaluation.batch_size,
            precision=self.precision,
        )

    def _score(self, model: Model, extractor: Extractor, sampler: Sampler) -> Score:
        request = self._request(model, sampler, self.evaluation.samples or self.data.count)
        statistics = statistics_of_batches(extractor, sample_units(model, request))
        return score_samples(statistics, self.reference, extractor, request, self.data.fingerprint)


def score_samples(
    samples: FeatureStatistics,
    reference: FeatureStatistics,
    extractor: Extractor,
    request: Request,
    fingerprint: str,
) -> Score:
    """Return the Fréchet distance between samples and reference, with its key.

    request: the request of the samples. fingerprint: that of the reference images.
    """
    key = score_key(
        extractor,
        n=samples.n,
        seed=request.seed,
        reference=fingerprint,
        labels=request.labels_text,
        sampler=text_of(request.sampler),
        nfe=request.sampler.nfe,
        precision=request.precision,
    )
    return Score(value=frechet_distance(samples, reference), key=key)


def noise_distance(
    extractor: Extractor, reference: FeatureStatistics, shape: tuple[int, int, int], n: int
) -> float:
    """Return the Fréchet distance of `n` images (c, h, w) of clipped Gaussian noise, to compare with."""
    noise = normal(0, 0, torch.arange(n), Purpose.SAMPLE, shape).clamp(-1, 1)
    return frechet_distance(statistics_of(extractor, to_uint8(noise)), reference)
