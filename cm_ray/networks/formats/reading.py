"""Reads a model from a folder of ours, from a file of weights, or from a directory of diffusers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import Architecture, GroupNormUNet
from cm_ray.networks.claims import check_claims, parse_spec
from cm_ray.networks.formats.diffusers_files import check_whole
from cm_ray.networks.formats.diffusers_names import is_diffusers
from cm_ray.networks.formats.diffusers_pipeline import is_pipeline, read_pipeline
from cm_ray.networks.formats.diffusers_unet import is_unet, read_unet, read_unet_file
from cm_ray.networks.formats.edm import is_edms, read_edm
from cm_ray.networks.formats.edm2 import is_edm2s, read_edm2
from cm_ray.networks.formats.openai import NAMES, as_images, is_openais, published_spec
from cm_ray.networks.formats.state_dicts import LANDMARKS, Landmark, state_dict
from cm_ray.networks.formats.weight_files import SUFFIXES, Weights, as_float32, split_part
from cm_ray.networks.model import SPEC, WEIGHTS, Model, ModelSpec, build_model, build_network
from cm_ray.networks.score_networks import RefineNet
from cm_ray.storage.files import parse_json, read_json, sha256_of
from cm_ray.storage.tensor_files import check_finite, read_safetensors, read_tensor_file

SPEC_KEY = "cm_ray.model"
"""Key of the specification in the metadata of our .safetensors files."""
_NOTES = ("time_points", "sampler", "reading", "ema_length", "initial_share")
"""Entries of a specification that do not change what the network computes."""


def is_model(path: Path) -> bool:
    """Return True if `read_model` can read the path, judged by its name and its files alone."""
    file, _ = split_part(path)
    if file.is_file():
        return file.suffix.lower() in SUFFIXES
    return (path / SPEC).is_file() or is_pipeline(path) or is_unet(path)


def load_model(
    path: Path,
    device: torch.device | str = "cpu",
    assumed: ModelSpec | None = None,
    *,
    check: bool = True,
) -> Model:
    """Return the model at a path, in eval mode on a device; "auto" is a GPU if there is one.

    assumed, check: see `read_model`. Raises UserError as `read_model` does, and when the device does not
    exist.
    """
    spec, weights = read_model(path, assumed, check=check)
    return build_model(spec, weights, path, device)


def read_model(
    path: Path, assumed: ModelSpec | None = None, *, check: bool = True
) -> tuple[ModelSpec, Weights]:
    """Return the specification of a model, and its weights by our names, all of them finite.

    path: a folder that `save_model` wrote; a directory of diffusers, of a ConsistencyModelPipeline or of its
    U-Net; or a file of weights, whose specification is in its metadata (ours), beside it (diffusers') or
    follows from its name (OpenAI's, EDM's). FILE#PLACE names a part of a checkpoint. assumed: the
    specification of files without one. check: refuse weights that are not finite; to be left out only where
    another process has checked the same files. Nothing is unpickled. Raises UserError, with the name of the
    file, when it has another format, is cut off or incomplete.
    """
    spec, weights = _read(path, assumed, check)
    check_claims(spec, weights, path)
    return spec, weights


def _read(path: Path, assumed: ModelSpec | None, check: bool) -> tuple[ModelSpec, Weights]:
    file, part = split_part(path)
    if file.is_file():
        return _read_file(file, part, assumed)
    if is_pipeline(path):
        return read_pipeline(path)
    if is_unet(path):
        return read_unet(path, assumed)
    if not (path / SPEC).is_file() or not (path / WEIGHTS).is_file():
        raise UserError(f"{path} holds no model; give a folder with {SPEC} and {WEIGHTS}.")
    return read_spec(path), read_safetensors(path / WEIGHTS, check=check)[0]


def read_spec(folder: Path) -> ModelSpec:
    """Return the specification in a folder that `save_model` wrote. Raises UserError when it is damaged."""
    return parse_spec(str(folder / SPEC), read_json(folder / SPEC))


def network_digest(path: Path) -> str:
    """Return a SHA-256 of a model's network and weights, without what else model.json says of them.

    A search for time points changes model.json but not this digest. Raises FileNotFoundError when there is no
    model at `path`.
    """
    if (path / SPEC).is_file():
        values = read_json(path / SPEC, dict)
        network = {name: value for name, value in values.items() if name not in _NOTES}
        content = json.dumps(network, sort_keys=True) + sha256_of(path / WEIGHTS)
    else:  # the name of a file is included, because the specification follows from it
        file, _ = split_part(path)
        files = [file] if file.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        content = path.name + "".join(map(sha256_of, files or [path]))
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()


def _read_file(file: Path, part: str, assumed: ModelSpec | None) -> tuple[ModelSpec, Weights]:
    check_whole(file)
    content, metadata = read_tensor_file(file)
    if SPEC_KEY in metadata:
        check_finite(content, file)
        place = f"The metadata of {file}"
        return parse_spec(place, parse_json(metadata[SPEC_KEY], place)), content
    weights = as_float32(state_dict(content, file, part, _landmarks(assumed)))
    check_finite(weights, file)
    if is_edms(weights):
        return read_edm(file, weights, assumed)
    if is_edm2s(weights):
        return read_edm2(file, weights, assumed)
    if is_diffusers(weights):
        return read_unet_file(file, weights, assumed)
    spec = published_spec(file.stem, weights) if is_openais(weights) else None
    if (spec := spec or assumed) is None:
        raise UserError(
            f"{file} has no specification; give it the name of one of OpenAI's files ({NAMES}), or give "
            f"it as {setting('teacher.model')} or {setting('init_from.model')} of a run, whose settings "
            "are then assumed."
        )
    if isinstance(spec.network, GroupNormUNet):
        return spec, as_images(spec.unet, weights, file)
    theirs = RefineNet.unused if isinstance(spec.network, RefineNet) else ()
    return spec, {name: tensor for name, tensor in weights.items() if name not in theirs}


def _landmarks(assumed: ModelSpec | None) -> tuple[Landmark, ...]:
    """Return the names by which weights are found: those of known networks, and of a run's own one."""
    if assumed is None or isinstance(assumed.network, Architecture):
        return LANDMARKS
    names = list(build_network(assumed).state_dict())
    return (*LANDMARKS, (names[0], names[-1])) if names else LANDMARKS
