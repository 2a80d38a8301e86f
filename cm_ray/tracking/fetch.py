"""Download a registered model to a local folder of two plain files."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError
from cm_ray.networks.model import SPEC, WEIGHTS
from cm_ray.storage.files import cache_root, folder_written_aside
from cm_ray.tracking.registry import (
    CONTENT_TAG,
    MODEL_ARTIFACT,
    existing_store,
    get_version,
    model_digest,
    parse_model_uri,
)
from cm_ray.tracking.store import brief, calling_mlflow, is_missing, open_client

_TIMEOUT_S = 30


def fetch_model(uri: str, tracking_uri: str = "") -> Path:
    """Download a registered model to the cache, once, and return its folder, for `load_model`.

    uri: ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.  tracking_uri: MLflow server or store; empty
    stands for $MLFLOW_TRACKING_URI, or else for mlflow.db in the default folder of runs. Only the model's two
    plain files are read. Raises UserError when the address is malformed, the server does not answer, the
    name, version or alias does not exist, or the files have another digest than the registered one.
    """
    name, version, alias = parse_model_uri(uri)
    tracking_uri = existing_store(tracking_uri)
    with calling_mlflow(_TIMEOUT_S):
        try:
            client = open_client(tracking_uri)
            found = get_version(client, name, version, alias)
            return _fetch(client, found, tracking_uri)
        except UserError:
            raise
        except Exception as error:  # MLflow passes on any exception of its transports
            if is_missing(error):
                raise UserError(f"{tracking_uri} has no model {uri}; look at its Models page.") from error
            raise UserError(f"Could not fetch {uri} from {tracking_uri}: {brief(error)}.") from error


def _fetch(client: Any, found: Any, tracking_uri: str) -> Path:
    """Return the folder of a version; download it if it is not in the cache."""
    from mlflow.artifacts import download_artifacts

    content = found.tags.get(CONTENT_TAG, "")
    if not content:
        raise UserError(f"models:/{found.name}/{found.version} was not registered by cm_ray; choose another.")
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
