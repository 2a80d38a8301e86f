"""Reads a model from a folder of ours, from a file of weights, or from a directory of diffusers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.diffusers_pipeline import is_pipeline, read_pipeline
from cm_ray.networks.formats.edm import is_edms, read_edm
from cm_ray.networks.formats.openai import NAMES, as_images, is_openais, published_spec
from cm_ray.networks.formats.weight_files import SUFFIXES, Weights, read_tensors
from cm_ray.networks.model import SPEC, WEIGHTS, Model, ModelSpec, build_model, spec_from_dict
from cm_ray.storage.files import read_json, sha256_of

SPEC_KEY = "cm_ray.model"
"""Key of the specification in the metadata of our .safetensors files."""

_NOTES = ("time_points", "sampler", "reading", "ema_length", "initial_share")
"""Entries of a specification that do not change what the network computes."""


def is_model(path: Path) -> bool:
    """Return True if `read_model` can read the path, judged by its name and its files alone."""
    if path.is_file():
        return path.suffix in SUFFIXES
    return (path / SPEC).is_file() or is_pipeline(path)


def load_model(path: Path, device: torch.device | str = "cpu", assumed: ModelSpec | None = None) -> Model:
    """Return the model at a path, in eval mode on a device; "auto" is a GPU if there is one.

    assumed: see `read_model`. Raises UserError as `read_model` does, and when the device does not exist.
    """
    spec, weights = read_model(path, assumed)
    return build_model(spec, weights, path, device)


def read_model(path: Path, assumed: ModelSpec | None = None) -> tuple[ModelSpec, Weights]:
    """Return the specification of a model, and its weights by our names.

    path: a folder that `save_model` wrote; a directory of diffusers' ConsistencyModelPipeline; or a file
    of weights, whose specification is in its metadata (ours) or follows from its name (OpenAI's, EDM's).
    assumed: the specification of files without one. Nothing is unpickled. Raises UserError, with the name
    of the file, when it has another format, is cut off or incomplete.
    """
    if path.is_file():
        return _read_file(path, assumed)
    if is_pipeline(path):
        return read_pipeline(path)
    if not (path / SPEC).is_file() or not (path / WEIGHTS).is_file():
        raise UserError(f"{path} holds no model; give a folder with {SPEC} and {WEIGHTS}.")
    spec = _spec(str(path / SPEC), read_json(path / SPEC))
    try:
        return spec, load_file(path / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{path / WEIGHTS} is broken ({error}); restore it.") from error


def network_digest(path: Path) -> str:
    """Return a SHA-256 of a model's network and weights, without what else model.json says of them.

    A search for time points changes model.json but not this digest. Raises FileNotFoundError when there is no
    model at `path`.
    """
    if (path / SPEC).is_file():
        values = read_json(path / SPEC)
        network = {name: value for name, value in values.items() if name not in _NOTES}
        content = json.dumps(network, sort_keys=True) + sha256_of(path / WEIGHTS)
    else:  # the name of a file is included, because the specification follows from it
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        content = path.name + "".join(map(sha256_of, files or [path]))
    return hashlib.sha256(content.encode()).hexdigest()


def _read_file(file: Path, assumed: ModelSpec | None) -> tuple[ModelSpec, Weights]:
    weights, metadata = read_tensors(file)
    if SPEC_KEY in metadata:
        return _spec(f"The metadata of {file}", _specification(file, metadata[SPEC_KEY])), weights
    if is_edms(weights):
        return read_edm(file, weights, assumed)
    if is_openais(weights):
        spec = published_spec(file.stem, weights) or assumed
        if spec is not None:
            return spec, as_images(spec.unet, weights, file)
    elif assumed is not None:
        return assumed, weights
    raise UserError(
        f"{file} has no specification; give it the name of one of OpenAI's files ({NAMES}), or give it as "
        f"{setting('teacher.model')} or {setting('init_from.model')} of a run, whose settings are then "
        "assumed."
    )


def _specification(file: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"The metadata of {file} are broken ({error}); restore it.") from error


def _spec(place: str, values: Any) -> ModelSpec:
    """Return the specification from JSON values. Raises UserError, with their place, on other values."""
    try:
        return spec_from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError, UserError) as error:
        reason = str(error).rstrip(".") if isinstance(error, UserError) else repr(error)
        raise UserError(f"{place} is not the specification of a model ({reason}); restore it.") from error
