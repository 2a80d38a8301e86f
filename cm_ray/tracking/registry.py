"""The model registry: a version for each finished model, as plain files that MLflow can load and serve."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError, setting
from cm_ray.extras import needs
from cm_ray.metrics.score import Score
from cm_ray.networks.formats.reading import read_spec
from cm_ray.networks.model import SPEC, WEIGHTS
from cm_ray.runs.places import default_run_dir
from cm_ray.storage.files import sha256_of
from cm_ray.tracking.champion import CHAMPION, SCORE_TAG, describe_champion, update_champion
from cm_ray.tracking.pyfunc_defaults import PARAMETERS
from cm_ray.tracking.sent_state import MetricValue
from cm_ray.tracking.status import Registered
from cm_ray.tracking.store import check_uri, database_file, default_uri
from cm_ray.version import __version__

CONTENT_TAG, VERSIONS_TAG = "cm_ray.model_sha256", "mlflow.modelVersions"
"""Names of tags: the digest of a version's model; the versions of a logged model, as JSON."""
MODEL_ARTIFACT = "model"
"""Name of the model's folder among the artifacts of the pyfunc model."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A model that is to be registered, and what its pages say of it."""

    name: str
    model: Path
    """Folder of the model."""
    run_id: str
    score: Score | None = None
    noise: float | None = None
    """The score of clipped Gaussian noise; None if it was not measured."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of the version, beside the score and the digest."""
    finals: Sequence[MetricValue] = ()
    """Final scores, which the page of the logged model shows."""
    describe: Callable[[str], str] = field(default=lambda address: "")
    """Returns the description of the model at an address."""


def register_model(client: Any, wanted: Registration) -> Registered:
    """Log a model to its MLflow run and register it as a version.

    A second call with the same run and model finds the existing version. Raises UserError when the folder has
    no model.
    """
    content, name = model_digest(wanted.model), wanted.name
    _make_registered_model(client, name)
    version = find_version(client, name, wanted.run_id, content)
    logged = log_model(client, wanted.model, wanted.run_id, content, wanted.finals)
    if version is None:
        tags = {**wanted.tags, **_score_tags(wanted.score), CONTENT_TAG: content}
        version = client.create_model_version(
            name, logged.artifact_location, wanted.run_id, tags=tags, model_id=logged.model_id
        ).version
    link_version(client, logged.model_id, name, str(version))
    if text := wanted.describe(f"models:/{name}/{version}"):
        client.update_model_version(name, str(version), text)
    champion, reason = update_champion(client, name, str(version), wanted.score, wanted.noise)
    if champion:
        describe_champion(client, name, wanted.describe(f"models:/{name}@{CHAMPION}"))
    return Registered(name=name, version=str(version), champion=champion, reason=reason)


def model_digest(model: Path) -> str:
    """Return the SHA-256 of a model folder's two files. Raises UserError when one is missing."""
    if not (model / SPEC).is_file() or not (model / WEIGHTS).is_file():
        raise UserError(f"{model} has no model to register; it must contain {SPEC} and {WEIGHTS}.")
    both = sha256_of(model / SPEC) + sha256_of(model / WEIGHTS)
    return hashlib.sha256(both.encode()).hexdigest()


def log_model(client: Any, model: Path, run_id: str, content: str, finals: Sequence[MetricValue] = ()) -> Any:
    """Log the model as an output of its MLflow run, once for each content; return MLflow's LoggedModel.

    finals: metrics of the model, which its page shows.
    """
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run_id).info.experiment_id
    mine = f"source_run_id = '{run_id}' and tags.`{CONTENT_TAG}` = '{content}'"
    found = [m for m in client.search_logged_models([experiment], mine) if m.status == "READY"]
    if found:
        return found[0]
    logged = client.create_logged_model(
        experiment, f"model-{content[:12]}", source_run_id=run_id, tags={CONTENT_TAG: content}
    )
    with tempfile.TemporaryDirectory() as scratch:
        save_pyfunc(model, Path(scratch) / "model", run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
    steps = max((value.step for value in finals), default=0)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, steps)])
    for value in finals:  # the run has the same already, and MLflow keeps one of equal values
        client.log_metric(
            run_id, value.name, value.value, value.time_ms, value.step, model_id=logged.model_id
        )
    return client.finalize_logged_model(logged.model_id, "READY")


def link_version(client: Any, model_id: str, name: str, version: str) -> None:
    """Let the page of a logged model name a registered version of it, as MLflow's own registration does."""
    linked = json.loads(client.get_logged_model(model_id).tags.get(VERSIONS_TAG, "[]"))
    if not any((one["name"], str(one["version"])) == (name, version) for one in linked):
        linked.append({"name": name, "version": version})
        client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(linked)})


def find_version(client: Any, name: str, run_id: str, content: str) -> Any:
    """Return the number of the version that an MLflow run has of this content; None if there is none."""
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if version.tags.get(CONTENT_TAG) == content:
            return version.version
    return None


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


def save_pyfunc(model: Path, folder: Path, *, run_id: str = "", model_id: str = "") -> None:
    """Write an MLflow model to a new `folder`: the two plain files, and code that loads them; no pickle.

    Loading and serving it needs cm_ray, which its requirements list.  run_id, model_id: of the MLflow run and
    the logged model that it belongs to, if any.
    """
    needs("mlflow", extra="track")
    import mlflow.pyfunc
    from mlflow.models import Model

    example = ({"index": [0, 1]}, PARAMETERS)
    with _called(MODEL_ARTIFACT, model) as named:
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=Model(run_id=run_id or None, model_id=model_id or None),
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


def _score_tags(score: Score | None) -> dict[str, str]:
    if score is None:
        return {}
    return {
        SCORE_TAG: json.dumps(score.to_row()),
        "score.name": score.metric,
        "score.value": f"{score.value:.6g}",
    }
