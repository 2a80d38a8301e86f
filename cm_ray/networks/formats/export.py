"""Exports a model in a format that is given by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from cm_ray.errors import UserError, closest
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.exporting import write_onnx, write_program, write_safetensors
from cm_ray.networks.model import Model, save_model

ExportFormat = Literal["diffusers", "safetensors", "torch", "onnx", "model"]
SUFFIXES = {"diffusers": "", "model": "", "safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


def export_model(
    model: Model, format: str, out: Path, *, grid: int = 40, also: Mapping[str, bytes] = {}
) -> Path:
    """Write a model for other tools; return the path that was written, with the ending of the format.

    format: "diffusers", "safetensors", "torch", "onnx" or "model". grid: number of boundaries of the grid of
    diffusers' time points. also: content of more files of a folder, by their names. A failed export leaves
    nothing. Raises UserError on another format, on a path that exists, and when the format cannot hold the
    model.
    """
    if format not in SUFFIXES:
        raise UserError(f"There is no format {format!r}: {closest(format, list(get_args(ExportFormat)))}")
    path = free_path(format, out)
    if format == "diffusers":
        write_pipeline(path, model.spec, model.network.state_dict(), grid, also)
    elif format == "model":
        save_model(path, model.spec, model.network.state_dict(), also)
    else:
        {"safetensors": write_safetensors, "torch": write_program, "onnx": write_onnx}[format](path, model)
    return path


def free_path(format: str, out: Path) -> Path:
    """Return `out` with the ending of the format. Raises UserError when that path exists and is not empty."""
    suffix = SUFFIXES[format]
    path = out if out.suffix == suffix or not suffix else out.with_name(out.name + suffix)
    if path.exists() and (suffix or not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already; remove it, or choose another path.")
    return path
