"""A finished training run: its model, scores, pictures and log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cm_ray.api.averages import ScoredLengths, average_model, extractor_of, score_averages
from cm_ray.api.trained_model import TrainedModel
from cm_ray.drawing.pictures import open_grid
from cm_ray.errors import whole
from cm_ray.evaluation.card import Card, training_of
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.score import Score
from cm_ray.networks.formats.reading import load_model
from cm_ray.own_code import Code, allow
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.remote_run import open_place
from cm_ray.storage.files import inside


class Run(TrainedModel):
    """A finished run; it samples, edits and exports as its model does.

    folder: the run directory, or its address. own_code: see `cm_ray.load`. Raises UserError when its training
    is not finished.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str | torch.device = "auto",
        own_code: Code | Iterable[Code] = (),
    ) -> None:
        allow(own_code)
        self.directory = open_place(folder)
        self.recipe: Recipe = self.directory.config()
        super().__init__(load_model(self.directory.model, device), name=self.directory.place)

    @property
    def model(self) -> TrainedModel:
        """The trained model by itself."""
        return TrainedModel(self.torch_model, self.name)

    def average(self, length: float, *, step: int = 0) -> TrainedModel:
        """Return the model whose weights are the average of a length (sigma_rel) over the training.

        For runs with averages power, see docs/averages.md. step: training step after which the average is
        taken; by default that of the run's model. Raises UserError when the run has not kept what is needed.
        """
        model = average_model(self.directory, self.recipe, self.spec, length, step, self.device)
        return TrainedModel(model, f"the average of length {length:g} of {self.name}")

    def averages(
        self,
        lengths: Sequence[float] = (),
        *,
        samples: int = 0,
        sampler: str = "",
        seed: int | None = None,
        step: int = 0,
        data: Any = None,
        extractor: str | Extractor = "",
        weights: str = "",
    ) -> ScoredLengths:
        """Score averages of several lengths on the same noise; lower is better, and `best` names the best.

        The scores are kept in the run, with a table and a plot (averages.md, averages.png), and are not
        computed twice. lengths: by default the recipe's candidates. samples: of each length; by default as
        many as the run scores, at most 10,000. sampler: by default the first that the run scores. seed: by
        default the run's plus 4. step: as in `average`. data: the images to compare with; by default the
        run's. extractor, weights: by default the recipe's. Raises UserError as `average` does, and without an
        extractor.
        """
        return score_averages(
            self.directory,
            self.recipe,
            self.spec,
            extractor_of(extractor, weights, self.recipe, self.name),
            lengths=lengths,
            data=data,
            step=step,
            device=self.device,
            samples=whole("samples", samples, 0),
            sampler=sampler,
            seed=seed,
        )

    @property
    def scores(self) -> list[Score]:
        """The final scores, in the order of the recipe's samplers."""
        return [Score.from_file(row, self.directory.result_file) for row in self.result["scores"]]

    @property
    def pictures(self) -> list[Image.Image]:
        """The final sample grids, in the order of the recipe's samplers."""
        names, root = self.result["paths"]["samples"], self.directory.root
        self.directory.fetch(self.directory.samples)
        return [open_grid(inside(root, name)) for name in names]

    def _card(self) -> Card:
        self.directory.fetch(self.directory.samples)
        training = training_of(self.directory)
        return replace(super()._card(), name=self.recipe.name, training=training)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The rows of the log: losses, curricula and speed by step, and scores while training."""
        return self.directory.read_metrics()

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json: scores, timings and paths."""
        return self.directory.result()
