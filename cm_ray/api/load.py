"""Loading a model from wherever it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from cm_ray.api.run import Run
from cm_ray.api.trained_model import TrainedModel
from cm_ray.networks.formats.reading import load_model
from cm_ray.own_code import Code, allow
from cm_ray.remote.copies import keys_at
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.places import default_run_dir
from cm_ray.storage.files import is_address
from cm_ray.tracking.locate import locate_model


def load(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    tracking_uri: str = "",
    own_code: Code | Iterable[Code] = (),
) -> TrainedModel:
    """Load a model: of a run, of the registry, a directory of diffusers, or a file of weights.

    name: a run by its name, directory or address (a `Run` is returned, with scores and pictures), a model's
    folder, models:/NAME@ALIAS or models:/NAME/VERSION, a directory of diffusers, or a file of OpenAI's or
    EDM's weights by its published name. device: a GPU if there is one, unless named. tracking_uri: MLflow
    server or store of models:/ names. own_code: networks and extractors of your own that it may name, as
    package.module:name or the classes and functions themselves; others are not imported. Raises UserError,
    saying what is missing, when there is none.
    """
    allow(own_code)
    text = str(name)
    if is_address(text) and "result.json" in keys_at(text):
        return Run(text, device)
    if not text.startswith("models:"):
        for folder in (Path(text).expanduser(), default_run_dir(text)):
            if RunDirectory(folder).result_file.is_file() and RunDirectory(folder).config_file.is_file():
                return Run(folder, device)
    return TrainedModel(load_model(locate_model(text, tracking_uri), device), text)
