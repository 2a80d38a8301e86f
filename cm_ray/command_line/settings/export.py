"""Settings of the command that writes a model for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.own_code import CodeSettings


@dataclass(frozen=True, kw_only=True)
class Export(CodeSettings):
    """Write a model for other tools: cm-ray export runs/demo --format diffusers --out demo

    MODEL is a run directory, a model's folder, models:/NAME@ALIAS, a file of OpenAI's weights, or a directory
    of diffusers. Formats: diffusers, a directory for ConsistencyModelPipeline.from_pretrained; safetensors,
    one file of weights with OpenAI's names, which every MODEL can be; torch, the one-step sampler for
    torch.export.load; onnx, the same for ONNX (pip install 'cm_ray[onnx]'); model, a model's folder, as a
    run leaves it.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory, model folder, models:/NAME@ALIAS, file of weights or directory of diffusers."""
    format: Literal["diffusers", "safetensors", "torch", "onnx", "model"] = "diffusers"
    """Format to write."""
    out: Path
    """Folder to write for diffusers and model, else file, whose ending is added where it lacks. Nothing that
    exists is replaced."""
    boundaries: int = 40
    """Boundaries of the grid on which diffusers counts time points (its num_train_timesteps); published: 40
    for distilled models, 201 and 151 for trained ones. The model's own time points are rounded to it."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""
