"""Register new time points of a registered model: the same network, as another version of the model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import network_digest, read_spec
from cm_ray.networks.model import SPEC, WEIGHTS
from cm_ray.sampling.multistep import TimePoints
from cm_ray.tracking.champion import CHAMPION, champion_of
from cm_ray.tracking.registry import (
    CONTENT_TAG,
    MODEL_ARTIFACT,
    existing_store,
    find_version,
    get_version,
    link_version,
    log_model,
    model_digest,
    parse_model_uri,
)
from cm_ray.tracking.sent_state import clean_name
from cm_ray.tracking.status import Registered
from cm_ray.tracking.store import brief, calling_mlflow, check_model_name, is_missing, open_client

POINTS_TAG, OF_TAG = "time_points", "time_points.of"
"""Names of tags: the time points as JSON, and the number of the version that they were searched for."""
_TIMEOUT_S = 120


def publish_time_points(
    model: Path,
    source: str,
    *,
    before: str = "",
    run_id: str = "",
    tracking_uri: str = "",
    tags: Mapping[str, Any] = {},
) -> Registered:
    """Register the folder `model`, which has new time points, as a version of the model that it comes from.

    source: the version that the time points were searched for: ``models:/NAME@ALIAS`` or
    ``models:/NAME/VERSION``; or NAME alone, for its first version with the `model_digest` `before`, that of
    the model before the search.  run_id: MLflow run whose versions are considered for NAME; empty: any run.
    tracking_uri: see `fetch_model`.  tags: more tags of the new version.

    The new version belongs to the MLflow run of the source and has its tags, and the tags `time_points`
    (JSON) and `time_points.of` (number of the source). A second call finds it. It becomes the champion if the
    source is. Raises UserError when the store does not answer, when cm_ray has not registered the source, and
    when `model` has no time points or another network.
    """
    content, points = model_digest(model), _time_points(model)
    uri = existing_store(tracking_uri)
    with calling_mlflow(_TIMEOUT_S):
        try:
            client = open_client(uri)
            old = _source(client, uri, source, before, run_id)
            _check_network(client, uri, old, model)
            named = {clean_name(name): str(value) for name, value in tags.items()}
            named |= {POINTS_TAG: json.dumps(points), OF_TAG: str(old.version), CONTENT_TAG: content}
            version = _version(client, old, model, named)
            champion, reason = _move_champion(client, old, version)
        except UserError:
            raise
        except Exception as error:  # MLflow passes on any exception of its transports
            raise UserError(
                f"Could not register the time points of {model} at {uri} ({brief(error)}); try again later."
            ) from error
    return Registered(name=old.name, version=version, champion=champion, reason=reason)


def _time_points(model: Path) -> TimePoints:
    points = read_spec(model).time_points
    if not points:
        raise UserError(f"{model} has no time points in its {SPEC}; search for some first.")
    return points


def _source(client: Any, uri: str, source: str, before: str, run_id: str) -> Any:
    """Return the version that the time points were searched for."""
    if before and not source.startswith("models:"):
        return _of_content(client, uri, source, before, run_id)
    name, version, alias = parse_model_uri(source)
    try:
        found = get_version(client, name, version, alias)
    except Exception as error:
        if is_missing(error):
            raise UserError(f"{uri} has no model {source}; look at its Models page.") from error
        raise
    if CONTENT_TAG not in found.tags:
        raise UserError(
            f"models:/{name}/{found.version} was not registered by cm_ray; give a version that was."
        )
    return found


def _of_content(client: Any, uri: str, name: str, content: str, run_id: str) -> Any:
    """Return the first version with this content; equal runs may have registered it more than once."""
    check_model_name(name)
    where = f"name = '{name}' and tags.`{CONTENT_TAG}` = '{content}'"
    found = client.search_model_versions(where + (f" and run_id = '{run_id}'" if run_id else ""))
    if not found:
        raise UserError(
            f"{uri} has no version of {name!r} with the model before the search; "
            "register it first with cm-ray track."
        )
    return min(found, key=lambda version: int(version.version))


def _check_network(client: Any, uri: str, old: Any, model: Path) -> None:
    """Raise UserError when `model` has another network than that version, since its scores would differ.

    Only the version's model.json is downloaded: together with the weights of `model` it must have the
    registered digest.
    """
    from mlflow.artifacts import download_artifacts

    place = f"{client.get_model_version_download_uri(old.name, old.version)}/artifacts/{MODEL_ARTIFACT}"
    with tempfile.TemporaryDirectory() as scratch:
        theirs = Path(download_artifacts(f"{place}/{SPEC}", dst_path=scratch, tracking_uri=uri)).parent
        (theirs / WEIGHTS).symlink_to((model / WEIGHTS).resolve())
        same_weights = model_digest(theirs) == old.tags[CONTENT_TAG]
        if same_weights and network_digest(theirs) == network_digest(model):
            return
    raise UserError(
        f"{model} has another network than models:/{old.name}/{old.version}; "
        "give the version that its time points were searched for."
    )


def _version(client: Any, old: Any, model: Path, tags: dict[str, str]) -> str:
    """Return the number of the version with these tags; register it if it does not exist."""
    number = find_version(client, old.name, old.run_id, tags[CONTENT_TAG])
    if number is None:
        logged = log_model(client, model, old.run_id, tags[CONTENT_TAG])
        # The source's tags of an earlier search are out of date.
        kept = {name: value for name, value in old.tags.items() if not name.startswith(POINTS_TAG)}
        made = client.create_model_version(
            old.name, logged.artifact_location, old.run_id, tags=kept | tags, model_id=logged.model_id
        )
        link_version(client, logged.model_id, old.name, str(made.version))
        return str(made.version)
    if int(number) > int(old.version):  # a repeated training may have registered it without these tags
        known = client.get_model_version(old.name, number).tags
        for name, value in tags.items():
            if name not in known:
                client.set_model_version_tag(old.name, number, name, value)
    return str(number)


def _move_champion(client: Any, old: Any, version: str) -> tuple[bool, str]:
    """Move the alias to `version` if its source has it; return True when it has it now, and why or why not.

    Both versions are the same network with the same score, so there is nothing else to compare.
    """
    name, present = old.name, champion_of(client, old.name)
    at = str(present.version) if present else ""
    if at == version:
        return True, f"{name} version {version} is the champion already."
    it_is = f"is version {old.version} with new time points"
    if at == str(old.version):
        client.set_registered_model_alias(name, CHAMPION, version)
        return True, f"{name} version {version} is the new champion: it {it_is}."
    if version == str(old.version):
        it_is = "has these time points already"
    stays = f"{name} version {at} stays champion" if at else f"{name} has no champion"
    return False, f"{stays}: version {version} {it_is}."
