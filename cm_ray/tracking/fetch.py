"""From a name in the registry to a local folder of two plain files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError
from cm_ray.files import cache_root, folder_written_aside
from cm_ray.networks.model import SPEC, WEIGHTS
from cm_ray.run_directory import default_run_dir
from cm_ray.tracking.registry import CONTENT_TAG, MODEL_ARTIFACT, model_digest
from cm_ray.tracking.store import (
    brief,
    calling_mlflow,
    check_uri,
    database_file,
    default_uri,
    is_missing,
    open_client,
)

_TIMEOUT_S = 30


def fetch_model(uri: str, tracking_uri: str = "") -> Path:
    """Download a registered model to the cache, once, and return its folder, for `load_model`.

    uri: ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.  tracking_uri: the server or store; empty
    stands for $MLFLOW_TRACKING_URI, else for mlflow.db in the default folder of runs. Only the model's
    two plain files are read. Raises UserError when the address is malformed, the server is away, the name,
    version or alias is not there, or what arrives is not what was registered.
    """
    name, version, alias = _parse(uri)
    tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    tracking_uri = tracking_uri or default_uri(default_run_dir("any").parent)
    check_uri(tracking_uri)
    file = database_file(tracking_uri)
    if file is not None and not file.is_file():  # MLflow would make an empty one
        raise UserError(f"There is no MLflow store at {file}; say where it is by --tracking.uri.")
    with calling_mlflow(_TIMEOUT_S):
        try:
            client = open_client(tracking_uri)
            found = (
                client.get_model_version_by_alias(name, alias)
                if alias
                else client.get_model_version(name, version)
            )
            return _fetch(client, found, tracking_uri)
        except UserError:
            raise
        except Exception as error:  # MLflow raises whatever its transports raise
            if is_missing(error):
                raise UserError(f"{tracking_uri} has no model {uri}; see its Models page.") from error
            raise UserError(f"Could not fetch {uri} from {tracking_uri}: {brief(error)}.") from error


def _fetch(client: Any, found: Any, tracking_uri: str) -> Path:
    """Return the folder of a version, downloaded if it is not in the cache."""
    from mlflow.artifacts import download_artifacts

    content = found.tags.get(CONTENT_TAG, "")
    if not content:
        raise UserError(f"models:/{found.name}/{found.version} was not registered by cm_ray.")
    store = hashlib.sha256(tracking_uri.encode()).hexdigest()[:12]
    folder = cache_root() / "models" / store / found.name / f"{found.version}-{content[:12]}"
    if folder.is_dir() and model_digest(folder) == content:
        return folder
    source = client.get_model_version_download_uri(found.name, found.version)
    with tempfile.TemporaryDirectory() as scratch, folder_written_aside(folder) as aside:
        for file in (SPEC, WEIGHTS):
            address = f"{source}/artifacts/{MODEL_ARTIFACT}/{file}"
            shutil.copy(
                download_artifacts(address, dst_path=scratch, tracking_uri=tracking_uri), aside / file
            )
        if model_digest(aside) != content:
            raise UserError(f"models:/{found.name}/{found.version} has other content than was registered.")
    return folder


def _parse(uri: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([\w.-]+))", uri)
    if match is None:
        raise UserError(f"{uri!r} is no model: give models:/NAME@champion or models:/NAME/VERSION.")
    return match[1], match[2] or "", match[3] or ""
