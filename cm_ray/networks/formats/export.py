"""Exporting a model: the formats by name, and the place that is written to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from cm_ray.errors import UserError, closest
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.exporting import write_onnx, write_program, write_safetensors
from cm_ray.networks.model import Model, save_model

ExportFormat = Literal["diffusers", "safetensors", "torch", "onnx", "model"]
SUFFIXES = {"diffusers": "", "model": "", "safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


def export_model(model: Model, format: str, out: Path, *, grid: int = 40) -> Path:
    """Write a model for other tools; return the path, with the ending of the format.

    format: diffusers, safetensors, torch, onnx, or model. grid: boundaries of the grid on which diffusers
    counts time points. Raises UserError on another format, where something is there already (an export is
    whole or not there), or when the format cannot hold the model.
    """
    if format not in SUFFIXES:
        raise UserError(f"There is no format {format!r}: {closest(format, list(get_args(ExportFormat)))}")
    place = free_place(format, out)
    if format == "diffusers":
        write_pipeline(place, model.spec, model.network.state_dict(), grid)
    elif format == "model":
        save_model(place, model.spec, model.network.state_dict())
    else:
        {"safetensors": write_safetensors, "torch": write_program, "onnx": write_onnx}[format](place, model)
    return place


def free_place(format: str, out: Path) -> Path:
    """Return the path to write to. Raises UserError when something is there already."""
    suffix = SUFFIXES[format]
    place = out if out.suffix == suffix or not suffix else out.with_name(out.name + suffix)
    if place.exists() and (suffix or not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} exists already: remove it, or choose another place.")
    return place
