"""The registered model as MLflow loads it: code that reads two plain files. Nothing is unpickled.

MLflow copies this file into every logged model and runs it from there; cm_ray must be installed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import mlflow.models
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cm_ray.core.types import Images, Labels
from cm_ray.data.pictures.uploads import fitted_mask, fitted_pixels, open_mask, open_upload
from cm_ray.drawing.model_labels import class_number
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.editing.model_edits import edited, interpolation_steps
from cm_ray.editing.tasks import Edit, Task, plan_edit
from cm_ray.errors import UserError, closest
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import Model, ModelSpec, from_uint8, to_uint8
from cm_ray.own_code import UnnamedCode, allow
from cm_ray.sampling.samplers import Sampler
from cm_ray.tracking.pyfunc_defaults import PARAMETERS

_BATCH, _MOST_STEPS = 256, 1000
OWN_CODE_VARIABLE = "CM_RAY_OWN_CODE"
"""The environment variable by which the command that serves a model names code of its own."""
_DRAWN = ("sample", "interpolate")
"""Tasks that take indices and no images."""


class RefusedRequest(MlflowException, UserError):  # type: ignore[misc]
    """A UserError that MLflow's server returns as one sentence, without a traceback."""

    def __init__(self, sentence: str) -> None:
        MlflowException.__init__(self, sentence, error_code=INVALID_PARAMETER_VALUE)


class ConsistencyPyfunc(PythonModel):  # type: ignore[misc]
    """Samples and edits by index: the same index, seed and settings give the same image."""

    def load_context(self, context: Any) -> None:
        """Read the model, onto a GPU if there is one.

        A network of one's own is imported if the environment variable CM_RAY_OWN_CODE of this process has its
        name, package.module:name; several are separated by spaces. MLflow's model_config does not count,
        since the logged model can have one. Raises UnnamedCode otherwise.
        """
        allow(os.environ.get(OWN_CODE_VARIABLE, "").split())
        try:
            self.model = load_model(Path(context.artifacts["model"]), "auto")
        except UnnamedCode as error:
            raise UnnamedCode(f"{error} Serving, the variable {OWN_CODE_VARIABLE} gives it.") from None
        warn_of_initial_weights(self.model.spec, "the served model")

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> NDArray[np.uint8] | pd.DataFrame:
        """Sample, or edit images.

        The column `index` selects the noise of a row. Tasks that take images do not need it; the default is
        the number of the row. params: task, "sample" by default; seed; steps, 0 for the default; label, the
        class of all rows by its name (as a text also where its name is a number), empty to draw one per row
        with the seed. The column `label` gives each row its own class, and an empty text draws it.

        - sample: returns uint8 (n, h, w, c). params: taus instead of steps.
        - interpolate: the column `alpha` goes from 0, the sample of `seed`, to 1, that of `to_seed`. It
          returns the same as sample. A model with classes needs a label.
        - inpaint, colorize, upscale, stroke, denoise: the column `image` has the bytes of an image
          file, such as a PNG; for inpaint, `mask` has the same, white where the image is kept. params:
          taus, factor, sigma, resize. Returns a table whose column `image` has the bytes of PNG files.

        Raises RefusedRequest on values that the model does not support.
        """
        settings = PARAMETERS | (params or {})
        try:
            if settings["task"] in _DRAWN:
                return self._drawn(model_input, settings)
            return pd.DataFrame({"image": [_png(pixels) for pixels in self._edited(model_input, settings)]})
        except RefusedRequest:
            raise
        except UserError as error:
            raise RefusedRequest(str(error)) from error

    def _drawn(self, table: pd.DataFrame, settings: dict[str, Any]) -> NDArray[np.uint8]:
        if "index" not in table:
            raise RefusedRequest("The column index is missing; give the index of each sample.")
        indices, seed = _indices(table), int(settings["seed"])
        sampler = _checked(self.model.spec, indices, settings)
        between = settings["task"] == "interpolate"
        if between and "alpha" not in table:
            raise RefusedRequest(
                "The column alpha is missing; give a number from 0 (seed) to 1 (to_seed) for each row."
            )
        classes = _classes(self.model, table, indices, settings)
        alpha = torch.tensor(table["alpha"].to_numpy(np.float64) if between else np.zeros(len(table)))
        if not ((alpha >= 0) & (alpha <= 1)).all():
            raise RefusedRequest("alpha must be in [0, 1].")

        def make(batch: Tensor, rows: Tensor, labels: Labels | None) -> Images:
            if not between:
                return self.model.sample(batch, seed=seed, sampler=sampler, labels=labels)
            share, seeds = alpha[rows.cpu()].to(batch.device), (seed, int(settings["to_seed"]))
            *_, last = interpolation_steps(
                self.model, sampler, share, indices=batch, seeds=seeds, labels=labels
            )
            return last.x

        return self._in_batches(indices, classes, make)

    def _edited(self, table: pd.DataFrame, settings: dict[str, Any]) -> NDArray[np.uint8]:
        spec, task = self.model.spec, settings["task"]
        edit, indices = _plan(spec, settings), _indices(table)
        _check_numbers(indices, settings)
        for column in ["image", "mask"] if task == "inpaint" else ["image"]:
            if column not in table:
                raise RefusedRequest(
                    f"The column {column} is missing; give the bytes of an image file for each row of {task}."
                )
        classes = _classes(self.model, table, indices, settings)
        pictures, masks = _read(table, spec, edit, bool(settings["resize"]))

        def make(batch: Tensor, rows: Tensor, labels: Labels | None) -> Images:
            mask = None if masks is None else masks[rows.cpu()].to(batch.device)
            images = from_uint8(pictures[rows.cpu()]).to(batch.device)
            seed = int(settings["seed"])
            return edited(self.model, edit, images, indices=batch, seed=seed, mask=mask, labels=labels)

        return self._in_batches(indices, classes, make)

    def _in_batches(
        self,
        indices: Tensor,
        classes: Tensor | None,
        make: Callable[[Tensor, Tensor, Labels | None], Images],
    ) -> NDArray[np.uint8]:
        """Return uint8 (n, h, w, c), made in batches of indices, rows and labels.

        classes: labels of all rows (n,), or None.
        """
        c, h, w = self.model.spec.shape
        device = next(self.model.parameters()).device
        made = [np.empty((0, h, w, c), np.uint8)]
        for rows in torch.arange(len(indices), device=device).split(_BATCH) if len(indices) else ():
            batch = indices.to(device)[rows]
            labels = None if classes is None else classes.to(device)[rows]
            made.append(to_uint8(make(batch, rows, labels)).permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(made)


def _indices(table: pd.DataFrame) -> Tensor:
    """Return the column index; without it, or where it has no number, the number of the row."""
    rows = np.arange(len(table), dtype=np.int64)
    if "index" not in table:
        return torch.from_numpy(rows)
    return torch.from_numpy(np.where(table["index"].isna(), rows, table["index"].fillna(0)).astype(np.int64))


def _classes(model: Model, table: pd.DataFrame, indices: Tensor, settings: dict[str, Any]) -> Tensor | None:
    """Return the class of each row (n,): of the column label, else the parameter's; None to draw all of them.

    Rows whose label is empty get the class that the seed draws for their index.
    """
    asked = list(table["label"]) if "label" in table else [None] * len(table)
    labels = [
        settings["label"] if label is None or label is pd.NA or label != label else label for label in asked
    ]
    if all(label == "" for label in labels):
        return None
    if "" in labels and settings["task"] == "interpolate":
        raise RefusedRequest("A row of the column label is empty; interpolate needs a class for every row.")
    known = {label: class_number(model.spec, label) for label in {*labels} - {""}}
    drawn = model.sample_labels(indices, int(settings["seed"]))
    assert drawn is not None, "class_number has refused models without classes"
    return torch.tensor([known.get(label, int(own)) for label, own in zip(labels, drawn, strict=True)])


def _read(table: pd.DataFrame, spec: ModelSpec, edit: Edit, resize: bool) -> tuple[Tensor, Tensor | None]:
    """Return the images, uint8 (n, c, h, w), and for inpaint the masks (n, 1, h, w)."""
    c, h, w = spec.shape
    pictures, masks = [np.empty((0, h, w, c), np.uint8)], [np.empty((0, h, w), np.bool_)]
    for row, data in enumerate(table["image"]):
        name = f"The image of row {row}"
        picture = open_upload(_bytes(data, name), name, spec.reading)
        pictures.append(fitted_pixels(picture, name, spec.shape, resize=resize, factor=edit.factor)[None])
        if edit.task == "inpaint":
            name = f"The mask of row {row}"
            mask = open_mask(_bytes(table["mask"].iloc[row], name), name)
            masks.append(fitted_mask(mask, name, picture, spec.shape)[None])
    images = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.concatenate(masks))[:, None] if edit.task == "inpaint" else None


def _bytes(data: Any, name: str) -> bytes:
    if not isinstance(data, bytes | bytearray):
        raise RefusedRequest(f"{name} is missing; give the bytes of an image file.")
    return bytes(data)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def _plan(spec: ModelSpec, settings: dict[str, Any]) -> Edit:
    """Return the requested edit."""
    task, known = settings["task"], get_args(Task)
    if task not in known:
        raise RefusedRequest(f"There is no task {task!r}: {closest(task, [*_DRAWN, *known])}")
    return plan_edit(
        task,
        spec.diffusion,
        spec.shape,
        steps=int(settings["steps"]),
        taus=_taus(settings),
        factor=int(settings["factor"]),
        sigma=float(settings["sigma"]),
    )


def _taus(settings: dict[str, Any]) -> tuple[float, ...]:
    return tuple(float(tau) for tau in settings["taus"])


def _checked(spec: ModelSpec, indices: Tensor, settings: dict[str, Any]) -> Sampler:
    """Return the sampler of a request. Raises RefusedRequest on an invalid one."""
    _check_numbers(indices, settings)
    for name in ("factor", "sigma", "resize"):
        if settings[name]:
            raise RefusedRequest(
                f"{name} does not apply to {settings['task']}, which takes no image; leave it out."
            )
    steps = int(settings["steps"])
    if not 0 <= steps <= _MOST_STEPS:
        raise RefusedRequest(f"steps must be 0 to {_MOST_STEPS}, not {steps}.")
    return sampler_of(spec, steps=steps, taus=_taus(settings))


def _check_numbers(indices: Tensor, settings: dict[str, Any]) -> None:
    if len(indices) and not (indices.min() >= 0 and indices.max() < 2**32):
        raise RefusedRequest("index must be in [0, 2^32).")
    for name in ("seed", "to_seed"):
        if int(settings[name]) < 0:
            raise RefusedRequest(f"{name} must be at least 0, not {settings[name]}.")


mlflow.models.set_model(ConsistencyPyfunc())
