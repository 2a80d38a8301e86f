"""The alias `champion` of a registered model, on its best version.

Only versions with scores of the same key compete for it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from cm_ray.errors import UserError
from cm_ray.metrics.score import Score, better, comparable, key_differences
from cm_ray.storage.files import parse_json
from cm_ray.tracking.store import is_missing

CHAMPION = "champion"
"""Alias of the best version."""
SCORE_TAG = "score"
"""Name of the tag with the score of a version as JSON."""


def update_champion(
    client: Any, name: str, version: str, score: Score | None, noise: float | None = None
) -> tuple[bool, str]:
    """Move the alias to `version` if there is no champion, or if its score, with the same key, is worse.

    A version that is no better than noise never becomes champion.  noise: the score of clipped noise; None
    if it was not measured. Returns True when the version is the champion now, and a sentence that says why or
    why not.
    """
    present = champion_of(client, name)
    if score is not None and noise is not None and score.kind == "FD" and score.value >= noise:
        stays = f"version {present.version} stays champion" if present else "there is no champion"
        return False, (
            f"{name}: {stays}, as version {version} is no better than clipped noise, "
            f"{score.metric} is {score.value:.4g} against {noise:.4g}."
        )
    if present is None:
        client.set_registered_model_alias(name, CHAMPION, version)
        return True, f"{name} version {version} is the champion: it is the first."
    if str(present.version) == version:
        return True, f"{name} version {version} is the champion already."
    stays = f"{name} version {present.version} stays champion: "
    theirs = score_of(present)
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


def champion_of(client: Any, name: str) -> Any:
    """Return the version with the alias `champion`; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if is_missing(error):
            return None
        raise


def describe_champion(client: Any, name: str, text: str) -> None:
    """Describe a registered model by its champion, unless somebody has written another description."""
    begin = f"`models:/{name}@{CHAMPION}`:"
    present = client.get_registered_model(name).description or ""
    if text and (not present or present.startswith(begin)):
        client.update_registered_model(name, f"{begin} {text}")


def score_of(version: Any) -> Score | None:
    """Return the score of a version; None if it has none, or one with another key."""
    with contextlib.suppress(ValueError, UserError):
        return Score.from_row(parse_json(version.tags.get(SCORE_TAG, ""), SCORE_TAG))
    return None
