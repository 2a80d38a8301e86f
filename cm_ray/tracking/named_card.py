"""The card of a model that a user names: of a run, of the registry, or of a folder."""

from __future__ import annotations

from pathlib import Path

from cm_ray.evaluation.card import Card, Training, training_of
from cm_ray.networks.model import Model
from cm_ray.runs.directory import RunDirectory
from cm_ray.tracking.champion import score_of
from cm_ray.tracking.registry import existing_store, get_version, parse_model_uri
from cm_ray.tracking.store import calling_mlflow, open_client

_TIMEOUT_S = 30


def named_card(model: Model, name: str, place: Path, tracking_uri: str = "") -> Card:
    """Return the card of a model, with what its run or its registered version says of its training.

    name: as the user gave it.  place: as `locate_model` returned it.  tracking_uri: see `fetch_model`. Raises
    UserError when the records of the run are damaged.
    """
    training = _training(name, place, tracking_uri)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    title = training.recipe or name.rstrip("/").rpartition("/")[2]
    return Card(name=title, spec=model.spec, training=training, parameters=parameters)


def _training(name: str, place: Path, tracking_uri: str) -> Training:
    if not name.startswith("models:"):
        return training_of(RunDirectory(place.parent))
    with calling_mlflow(_TIMEOUT_S):
        version = get_version(open_client(existing_store(tracking_uri)), *parse_model_uri(name))
    score = score_of(version)
    fingerprint = version.tags.get("data.fingerprint", "")
    return Training(scores=[score] if score else [], fingerprint=fingerprint)
