"""Scores and sample grids of a model during training; the training data is the reference."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import save_grid
from cm_ray.drawing.requests import Request, sample_unit
from cm_ray.evaluation.from_settings import evaluation_labels, extractor_opener
from cm_ray.evaluation.reference import ScoredAgainst, keep_statistics, kept_statistics
from cm_ray.evaluation.scorer import request_key, sample_count
from cm_ray.metrics.extractors.extractor import Extractor, statistics_of_batches
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.metrics.score import Score
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import Model
from cm_ray.recipes.recipe import Recipe
from cm_ray.sampling.samplers import Sampler
from cm_ray.training.batch import Share
from cm_ray.training.communication import Communication


class Evaluator:
    """Samples from a model on all workers of a training, each its share, and scores the samples.

    All workers make an evaluator and call `evaluate` at the same steps. What they made is added up, so that
    no worker waits for another one's work, and nothing is held that grows with the number of samples.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: ScoredAgainst,
        device: torch.device,
        share: Share,
        communication: Communication,
    ) -> None:
        self.evaluation, self.seed, self.precision = recipe.evaluation, recipe.seed, recipe.precision
        self.data, self.share, self.communication = data, share, communication
        self.at_once = recipe.sampled_at_once
        opener = extractor_opener(self.evaluation)
        self.extractor = opener(device) if opener else None
        self.reference = self._reference(self.extractor) if self.extractor else None

    def evaluate(self, model: Model, step: int, folder: Path) -> list[Score]:
        """Save a grid of the first sampler in `folder`; return the scores of all samplers, in order.

        Rank 0 alone writes and scores; the other workers return no score.
        """
        samplers = [sampler_of(model.spec, text) for text in self.evaluation.samplers]
        grid = self._request(model, samplers[0], self.evaluation.grid**2)
        images = self._images(model, grid)
        if self.share.rank == 0:
            save_grid(
                images,
                folder / f"step-{step:08d}.png",
                columns=self.evaluation.grid,
                classes=grid.drawn_classes(model.spec),
            )
        if self.extractor is None:
            return []
        scores = [self._score(model, self.extractor, sampler) for sampler in samplers]
        return [score for score in scores if score is not None]

    def _request(self, model: Model, sampler: Sampler, count: int) -> Request:
        return Request(
            count=count,
            seed=self.seed,
            sampler=sampler,
            labels=evaluation_labels(self.evaluation, model.spec, self.data),
            unit=min(self.at_once, -(-count // self.share.parts)),
            precision=self.precision,
        )

    def _images(self, model: Model, request: Request) -> Tensor:
        """Return all images of a request, uint8 (n, c, h, w), of which every worker makes its units."""
        images = torch.zeros(request.count, *model.spec.shape, dtype=torch.uint8)
        for first, count in request.units()[self.share.rank :: self.share.world]:
            images[first : first + count] = sample_unit(model, request, first, count)
        return self.communication.sum(images)  # the others have zeros there

    def _score(self, model: Model, extractor: Extractor, sampler: Sampler) -> Score | None:
        request = self._request(model, sampler, sample_count(self.evaluation.samples, self.data.count))
        units = request.units()[self.share.rank :: self.share.world]
        batches = (sample_unit(model, request, first, count) for first, count in units)
        samples = self._added(statistics_of_batches(extractor, batches))
        if self.reference is None:
            return None
        key = request_key(extractor, request, self.data.fingerprint)
        return Score(value=frechet_distance(samples, self.reference), key=key)

    def _reference(self, extractor: Extractor) -> FeatureStatistics | None:
        """Return the statistics of the data on rank 0: those in its cache, else of all workers' blocks."""
        kept = kept_statistics(self.data, extractor) if self.share.rank == 0 else None
        if self.communication.broadcast(kept is not None):
            return kept
        blocks = self.data.blocks(self.share.rank, self.share.world)
        whole = self._added(statistics_of_batches(extractor, blocks))
        if self.share.rank > 0:
            return None
        keep_statistics(self.data, extractor, whole)
        return whole

    def _added(self, part: FeatureStatistics) -> FeatureStatistics:
        """Return the sum of the statistics of all workers."""
        n, total, outer = (
            self.communication.sum(torch.as_tensor(each, dtype=torch.float64)).numpy()
            for each in (part.n, part.total, part.outer)
        )
        return FeatureStatistics(int(n), total, outer)
