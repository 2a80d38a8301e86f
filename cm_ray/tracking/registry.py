"""The model registry: a version for each finished model, and the alias `champion` on the best one.

Only versions with scores of the same key compete for the alias.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError, setting
from cm_ray.extras import needs
from cm_ray.metrics.score import Score, better, comparable, key_differences
from cm_ray.networks.formats.reading import read_spec
from cm_ray.networks.model import SPEC, WEIGHTS
from cm_ray.runs.places import default_run_dir
from cm_ray.storage.files import parse_json, sha256_of
from cm_ray.tracking.pyfunc_defaults import PARAMETERS
from cm_ray.tracking.status import Registered
from cm_ray.tracking.store import check_uri, database_file, default_uri, is_missing
from cm_ray.version import __version__

CHAMPION = "champion"
"""Alias of the best version."""
CONTENT_TAG, SCORE_TAG = "cm_ray.model_sha256", "score"
"""Names of tags: the digest of a version's model, and its score as JSON."""
MODEL_ARTIFACT = "model"
"""Name of the model's folder among the artifacts of the pyfunc model."""


def register_model(
    client: Any,
    name: str,
    model: Path,
    *,
    run_id: str,
    score: Score | None,
    lineage: dict[str, Any],
) -> Registered:
    """Log the folder `model` to the MLflow run and register it as a version of `name`.

    A second call with the same run and model finds the existing version. The tags of the version are the
    score, its key and the lineage. Raises UserError when the folder has no model.
    """
    content = model_digest(model)
    _make_registered_model(client, name)
    version = find_version(client, name, run_id, content)
    if version is None:
        source = log_model(client, model, run_id, content)
        tags = {**_tags(score, lineage), CONTENT_TAG: content}
        version = client.create_model_version(name, source, run_id, tags=tags).version
    champion, reason = update_champion(client, name, str(version), score)
    return Registered(name=name, version=str(version), champion=champion, reason=reason)


def update_champion(client: Any, name: str, version: str, score: Score | None) -> tuple[bool, str]:
    """Move the alias to `version` if there is no champion, or if its score, with the same key, is worse.

    Returns True when the version is the champion now, and a sentence that says why or why not.
    """
    present = champion_of(client, name)
    if present is None:
        client.set_registered_model_alias(name, CHAMPION, version)
        return True, f"{name} version {version} is the champion: it is the first."
    if str(present.version) == version:
        return True, f"{name} version {version} is the champion already."
    stays = f"{name} version {present.version} stays champion: "
    theirs = _score_of(present)
    if score is None:
        return False, f"{stays}version {version} has no score."
    if theirs is None and SCORE_TAG in present.tags:
        return False, f"{stays}its score was measured by another version of cm_ray, and cannot be compared."
    if theirs is None:
        client.set_registered_model_alias(name, CHAMPION, version)
        return True, f"{name} version {version} is the new champion: version {present.version} has no score."
    if not comparable(score, theirs):
        return False, f"{stays}the scores do not compare ({key_differences(score, theirs)})."
    figures = f"{score.metric} is {score.value:.4g} against {theirs.value:.4g}"
    if not better(score, theirs):
        return False, f"{stays}version {version} is no better, {figures}."
    client.set_registered_model_alias(name, CHAMPION, version)
    return True, f"{name} version {version} is the new champion: {figures}."


def model_digest(model: Path) -> str:
    """Return the SHA-256 of a model folder's two files. Raises UserError when one is missing."""
    if not (model / SPEC).is_file() or not (model / WEIGHTS).is_file():
        raise UserError(f"{model} has no model to register; it must contain {SPEC} and {WEIGHTS}.")
    both = sha256_of(model / SPEC) + sha256_of(model / WEIGHTS)
    return hashlib.sha256(both.encode()).hexdigest()


def log_model(client: Any, model: Path, run_id: str, content: str) -> str:
    """Add the model to the run's artifacts, under a name with its digest; return its address."""
    place = f"model-{content[:12]}"
    with tempfile.TemporaryDirectory() as scratch:
        save_pyfunc(model, Path(scratch) / "model")
        client.log_artifacts(run_id, str(Path(scratch) / "model"), place)
    return f"{client.get_run(run_id).info.artifact_uri}/{place}"


def find_version(client: Any, name: str, run_id: str, content: str) -> Any:
    """Return the number of the version that an MLflow run has of this content; None if there is none."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if version.tags.get(CONTENT_TAG) == content:
            return version.version
    return None


def champion_of(client: Any, name: str) -> Any:
    """Return the version with the alias `champion`; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if is_missing(error):
            return None
        raise


def parse_model_uri(uri: str) -> tuple[str, str, str]:
    """Return name, version and alias of ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``; one is empty.

    Raises UserError on any other text.
    """
    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([\w.-]+))", uri)
    if match is None:
        raise UserError(
            f"{uri!r} is not the address of a model; give models:/NAME@champion or models:/NAME/VERSION."
        )
    return match[1], match[2] or "", match[3] or ""


def existing_store(tracking_uri: str) -> str:
    """Return the address of an MLflow store, after a check that its file exists; no server is contacted.

    Empty stands for $MLFLOW_TRACKING_URI, or else for mlflow.db in the default folder of runs. Raises
    UserError when MLflow does not support this kind of store, or when the file does not exist.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = uri or default_uri(default_run_dir("any").parent)
    check_uri(uri)
    file = database_file(uri)
    if file is not None and not file.is_file():  # MLflow would create an empty one
        raise UserError(f"There is no MLflow store at {file}; give its address as {setting('tracking_uri')}.")
    return uri


def get_version(client: Any, name: str, version: str, alias: str) -> Any:
    """Return a version by its number or alias, whichever is given.

    Raises MLflow's exception when there is none.
    """
    if alias:
        return client.get_model_version_by_alias(name, alias)
    return client.get_model_version(name, version)


def save_pyfunc(model: Path, folder: Path) -> None:
    """Write an MLflow model to a new `folder`: the two plain files, and code that loads them; no pickle.

    Loading and serving it needs cm_ray, which its requirements list.
    """
    needs("mlflow", extra="track")
    import mlflow.pyfunc

    example = ({"index": [0, 1]}, PARAMETERS)
    with _called(MODEL_ARTIFACT, model) as named:
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={MODEL_ARTIFACT: str(named)},
            signature=_signature(model),
            input_example=example,
            pip_requirements=[f"cm_ray=={__version__}", f"mlflow=={mlflow.__version__}"],
        )


@contextlib.contextmanager
def _called(name: str, model: Path) -> Iterator[Path]:
    """Yield a folder with this name that contains the model, since MLflow keeps the name of a folder.

    It is a copy, since MLflow follows no link out of a folder.
    """
    if model.name == name:
        yield model
        return
    with tempfile.TemporaryDirectory() as scratch:
        named = Path(scratch) / name
        named.mkdir()
        for file in (SPEC, WEIGHTS):
            shutil.copyfile(model / file, named / file)
        yield named


def _signature(model: Path) -> Any:
    """Return the signature: columns and parameters to uint8 images (n, h, w, c), for the default task.

    Tasks that edit images return a table of PNG files, which a signature cannot express in addition.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    c, h, w = read_spec(model).shape
    kinds = {str: DataType.string, int: DataType.long, float: DataType.double, bool: DataType.boolean}
    columns = {"index": DataType.long, "image": DataType.binary, "mask": DataType.binary}
    return ModelSignature(
        inputs=Schema(
            [ColSpec(kind, name, required=False) for name, kind in columns.items()]
            + [ColSpec(DataType.double, "alpha", required=False)]
            + [ColSpec(DataType.string, "label", required=False)]
        ),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, h, w, c))]),
        params=ParamSchema(
            [
                ParamSpec(name, DataType.double, value, shape=(-1,))
                if isinstance(value, list)
                else ParamSpec(name, kinds[type(value)], value)
                for name, value in PARAMETERS.items()
            ]
        ),
    )


def _make_registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(score: Score | None, lineage: dict[str, Any]) -> dict[str, str]:
    tags = {name: str(value) for name, value in lineage.items()}
    if score is not None:
        tags |= {SCORE_TAG: json.dumps(score.to_row()), "score.name": score.metric}
        tags |= {"score.value": f"{score.value:.6g}"}
    return tags


def _score_of(version: Any) -> Score | None:
    """Return the score of a version; None if it has none, or one with another key."""
    with contextlib.suppress(ValueError, UserError):
        return Score.from_row(parse_json(version.tags.get(SCORE_TAG, ""), SCORE_TAG))
    return None
