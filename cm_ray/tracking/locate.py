"""Find the folder or file of a model by the name that a user gives."""

from __future__ import annotations

from pathlib import Path

from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import is_model
from cm_ray.networks.model import SPEC
from cm_ray.remote.copies import fetched_file, fetched_folder, keys_at
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.places import default_run_dir
from cm_ray.storage.files import is_address
from cm_ray.tracking.fetch import fetch_model

_MODELS = {SPEC, "model_index.json"}
"""Files by which a folder at an address is a model: ours, or of diffusers."""


def locate_model(name: str, tracking_uri: str = "") -> Path:
    """Return the place, for `read_model`, of a model named by run directory, by path or by registry address.

    name: ``runs/demo``, ``runs/demo/model``, ``demo`` (in the default folder of runs),
    ``models:/NAME@champion`` or ``models:/NAME/3``, a file of weights, a directory of diffusers, or the
    address of one of them, of which a copy is returned.
    tracking_uri: see `fetch_model`. Raises UserError, which says what is missing, when there is no such
    model.
    """
    if (place := find_model(name, tracking_uri)) is not None:
        return place
    raise UserError(
        f"{name} is not a model; give a run directory, a model's folder, a file of weights, a directory of "
        "diffusers, or models:/NAME@ALIAS."
    )


def find_model(name: str, tracking_uri: str = "") -> Path | None:
    """Return the place of a model as `locate_model` does, or None when the name does not belong to a model.

    Raises UserError when the run is not finished, or when the registry does not have the model.
    """
    if name.startswith("models:"):
        return fetch_model(name, tracking_uri)
    if is_address(name):
        return _fetched(name)
    folder = Path(name).expanduser()
    runs = [folder] if "/" in name or not name else [folder, default_run_dir(name)]
    for run in runs:
        for place in (run, RunDirectory(run).model):
            if is_model(place):
                return place
    for run in runs:
        if RunDirectory(run).config_file.is_file():
            raise UserError(f"The run in {run} is not finished; repeat its command first.")
    return None


def _fetched(address: str) -> Path | None:
    """Return a local copy of the model at an address; None for a folder without one.

    A run's, one in a folder, or one file. Raises UserError when the run is not finished, or without any file.
    """
    keys = keys_at(address)
    if not keys:
        return fetched_file(address)
    folder, within = RunDirectory(Path()), "" if _MODELS & {*keys} else "model/"
    if within and folder.config_file.name in keys and folder.result_file.name not in keys:
        raise UserError(f"The run at {address} is not finished; repeat its command first.")
    if within and f"{within}{SPEC}" not in keys:
        return None
    copy = fetched_folder(address, lambda key: not within or "/" not in key or key.startswith(within))
    return copy / within
