"""The registered model as MLflow loads it: code that reads two plain files, nothing to unpickle.

MLflow copies this file into every logged model and runs it there; it needs cm_ray installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from numpy.typing import NDArray

from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec, sampling_of, to_uint8
from cm_ray.networks.reading import load_model
from cm_ray.sampling import Sampling

_BATCH, _MOST_STEPS = 256, 1000


class RefusedRequest(MlflowException, UserError):  # type: ignore[misc]
    """A UserError that MLflow's server passes on as its sentence, without a traceback."""

    def __init__(self, sentence: str) -> None:
        MlflowException.__init__(self, sentence, error_code=INVALID_PARAMETER_VALUE)


class ConsistencyPyfunc(PythonModel):  # type: ignore[misc]
    """Samples by index: the same index, seed, steps and label give the same image."""

    def load_context(self, context: Any) -> None:
        """Read the model, onto a GPU if there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = load_model(Path(context.artifacts["model"]), device)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> NDArray[np.uint8]:
        """Return the samples with the indices in column `index`, uint8 (n, h, w, c).

        params: seed of the noise; steps of the sampler, 0 for the model's own; label, a class, -1 to draw one
        per sample with the seed. Raises RefusedRequest on values that the model does not take.
        """
        settings = {"seed": 0, "steps": 0, "label": -1} | (params or {})
        seed, steps, label = (int(settings[name]) for name in ("seed", "steps", "label"))
        indices = torch.from_numpy(np.array(model_input["index"], dtype=np.int64))
        sampling = _checked(self.model.spec, indices, seed, steps, label)
        indices = indices.to(next(self.model.parameters()).device)
        c, h, w = self.model.spec.shape
        made = [np.empty((0, h, w, c), np.uint8)]
        for part in indices.split(_BATCH) if len(indices) else ():
            labels = None if label < 0 else torch.full_like(part, label)
            images = self.model.sample(part, seed=seed, sampling=sampling, labels=labels)
            made.append(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(made)


def _checked(spec: ModelSpec, indices: torch.Tensor, seed: int, steps: int, label: int) -> Sampling:
    """Return the sampling of a request. Raises RefusedRequest on a bad one."""
    if len(indices) and not (indices.min() >= 0 and indices.max() < 2**32):
        raise RefusedRequest("index must be in [0, 2^32).")
    if seed < 0:
        raise RefusedRequest(f"seed must be at least 0, not {seed}.")
    if not 0 <= steps <= _MOST_STEPS:
        raise RefusedRequest(f"steps must be 0 to {_MOST_STEPS}, not {steps}.")
    if label != -1 and not 0 <= label < spec.classes:
        known = f"0 to {spec.classes - 1}, or -1 to draw it" if spec.classes else "-1, it has no classes"
        raise RefusedRequest(f"label {label} is none of this model's: give {known}.")
    try:
        return sampling_of(spec, steps=steps)
    except UserError as error:
        raise RefusedRequest(str(error)) from error


mlflow.models.set_model(ConsistencyPyfunc())
