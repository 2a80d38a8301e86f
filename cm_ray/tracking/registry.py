"""The model registry: one version per finished model, and the alias `champion` on the best of one key."""

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

import cm_ray
from cm_ray.errors import UserError
from cm_ray.extras import needs
from cm_ray.metrics.score import Score, better, comparable, key_differences
from cm_ray.networks.model import SPEC, WEIGHTS, spec_from_dict
from cm_ray.runs.directory import default_run_dir
from cm_ray.storage.files import read_json, sha256_of
from cm_ray.tracking.pyfunc_defaults import PARAMETERS
from cm_ray.tracking.store import check_uri, database_file, default_uri, is_missing
from cm_ray.tracking.tracker import Registered

CHAMPION = "champion"
CONTENT_TAG, SCORE_TAG = "cm_ray.model_sha256", "score"
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

    Called again with the same run and the same model it finds the version that is there. The version's
    tags hold the score, its key, and the lineage. Raises UserError when `model` holds no model.
    """
    content = model_digest(model)
    _make_registered_model(client, name)
    version = find_version(client, name, run_id, content)
    if version is None:
        source = log_model(client, model, run_id, content)
        tags = {**_tags(score, lineage), CONTENT_TAG: content}
        version = client.create_model_version(name, source, run_id, tags=tags).version
    champion, reason = crown(client, name, str(version), score)
    return Registered(name=name, version=str(version), champion=champion, reason=reason)


def crown(client: Any, name: str, version: str, score: Score | None) -> tuple[bool, str]:
    """Move the alias to `version` if there is no champion yet or its score, of the same key, is worse.

    Returns whether the version is the champion now, and why, in one sentence.
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
    """Return the SHA-256 of a model folder's two files. Raises UserError when they are not there."""
    if not (model / SPEC).is_file() or not (model / WEIGHTS).is_file():
        raise UserError(f"{model} holds no model to register: {SPEC} and {WEIGHTS} are expected there.")
    both = sha256_of(model / SPEC) + sha256_of(model / WEIGHTS)
    return hashlib.sha256(both.encode()).hexdigest()


def log_model(client: Any, model: Path, run_id: str, content: str) -> str:
    """Put the model among the run's artifacts, under a name that tells its content; return its address."""
    place = f"model-{content[:12]}"
    with tempfile.TemporaryDirectory() as scratch:
        save_pyfunc(model, Path(scratch) / "model")
        client.log_artifacts(run_id, str(Path(scratch) / "model"), place)
    return f"{client.get_run(run_id).info.artifact_uri}/{place}"


def find_version(client: Any, name: str, run_id: str, content: str) -> Any:
    """Return the number of the version that an MLflow run has of this content; None if it has none."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if version.tags.get(CONTENT_TAG) == content:
            return version.version
    return None


def champion_of(client: Any, name: str) -> Any:
    """Return the version that the alias `champion` is on; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if is_missing(error):
            return None
        raise


def parse_model_uri(uri: str) -> tuple[str, str, str]:
    """Return name, version and alias of ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``, one empty.

    Raises UserError when it is neither.
    """
    match = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([\w.-]+))", uri)
    if match is None:
        raise UserError(f"{uri!r} is no model: give models:/NAME@champion or models:/NAME/VERSION.")
    return match[1], match[2] or "", match[3] or ""


def existing_store(tracking_uri: str) -> str:
    """Return the address of a store that is there; one that is reached by the network is not contacted.

    Empty stands for $MLFLOW_TRACKING_URI, else for mlflow.db in the default folder of runs. Raises UserError
    when MLflow has no store of this kind, or the file is not there.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    uri = uri or default_uri(default_run_dir("any").parent)
    check_uri(uri)
    file = database_file(uri)
    if file is not None and not file.is_file():  # MLflow would make an empty one
        raise UserError(f"There is no MLflow store at {file}; give its address by --tracking-uri.")
    return uri


def get_version(client: Any, name: str, version: str, alias: str) -> Any:
    """Return a version by its number or alias, whichever is given; raises MLflow's exception without one."""
    if alias:
        return client.get_model_version_by_alias(name, alias)
    return client.get_model_version(name, version)


def save_pyfunc(model: Path, folder: Path) -> None:
    """Write an MLflow model to a new `folder`: the two plain files, and code that loads them; no pickle.

    It needs cm_ray where it is loaded or served, which its requirements say.
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
            pip_requirements=[f"cm_ray=={cm_ray.__version__}", f"mlflow=={mlflow.__version__}"],
        )


@contextlib.contextmanager
def _called(name: str, model: Path) -> Iterator[Path]:
    """Yield a folder of this name with the model: MLflow keeps a folder under its own name.

    A copy and not a link, as MLflow follows none out of a folder.
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
    """Return: columns and parameters to uint8 images (n, h, w, c), as of the default task, sample.

    Tasks that edit images return a table of PNG files instead, for which a signature has no second form.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    c, h, w = spec_from_dict(read_json(model / SPEC)).shape
    kinds = {str: DataType.string, int: DataType.long, float: DataType.double, bool: DataType.boolean}
    columns = {"index": DataType.long, "image": DataType.binary, "mask": DataType.binary}
    return ModelSignature(
        inputs=Schema(
            [ColSpec(kind, name, required=False) for name, kind in columns.items()]
            + [ColSpec(DataType.double, "alpha", required=False)]
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
    """Return a version's score; none if it has none, or one that was written in other words."""
    with contextlib.suppress(ValueError):
        return Score.from_row(json.loads(version.tags.get(SCORE_TAG, "")))
    return None
