"""A finished training run: its model, scores, pictures and log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cm_ray.api.trained_model import TrainedModel
from cm_ray.metrics.score import Score
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import read_json


class Run(TrainedModel):
    """A finished run; it samples, edits and exports as its model does.

    folder: the run directory. Raises UserError when its training is not finished.
    """

    def __init__(self, folder: str | Path, device: str | torch.device = "auto") -> None:
        self.directory = RunDirectory(Path(folder))
        self.recipe: Recipe = self.directory.config()
        super().__init__(load_model(self.directory.model, device), name=str(folder))

    @property
    def model(self) -> TrainedModel:
        """The trained model by itself."""
        return TrainedModel(self.torch_model, self.name)

    @property
    def scores(self) -> list[Score]:
        """The final scores, in the order of the recipe's samplers."""
        return [Score.from_row(row) for row in self.result["scores"]]

    @property
    def pictures(self) -> list[Image.Image]:
        """The final sample grids, in the order of the recipe's samplers."""
        return [Image.open(path) for path in self.result["paths"]["samples"]]

    @property
    def log(self) -> list[dict[str, Any]]:
        """The rows of the log: losses, curricula and speed by step, and scores while training."""
        return self.directory.read_metrics()

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json: scores, timings and paths."""
        values: dict[str, Any] = read_json(self.directory.result_file)
        return values
