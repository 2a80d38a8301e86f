"""The content of MLflow's pages of a run beside its curves: pictures, data set, final scores, description."""

from __future__ import annotations

import getpass
import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from cm_ray.data.interface.names import printable
from cm_ray.evaluation.card import Card
from cm_ray.metrics.score import Score
from cm_ray.runs.directory import RunDirectory
from cm_ray.tracking.sent_state import MetricValue, clean_name

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""Tag by which MLflow shows an experiment under model training."""
NOTE_TAG, SOURCE_TAG, COMMIT_TAG = "mlflow.note.content", "mlflow.source.name", "mlflow.source.git.commit"
MOST_NOTE = 8000
"""Most characters of a description that MLflow stores as a tag."""
_MOST_DIGEST = 36
_AFTER_MS = 1000
"""Time between the last row of the log and the final scores, which chart axes of time show as the end."""


class Picture(NamedTuple):
    """A picture of a run that MLflow shows by training steps."""

    file: Path
    key: str
    """Pictures of one key are a series."""
    step: int


def origin_tags() -> dict[str, str]:
    """Return the tags that say who started an MLflow run, and by which command."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # of a container whose user has no name
        user = "unknown"
    return {
        "mlflow.user": user,
        SOURCE_TAG: printable(shlex.join(sys.argv)),
        "mlflow.source.type": "LOCAL",
    }


def lineage_tags(lineage: Mapping[str, str]) -> dict[str, str]:
    """Return the few parts of a lineage by which runs are searched; lineage.json has all of them."""
    names = {"command": SOURCE_TAG, "git.revision": COMMIT_TAG, "data.fingerprint": "data.fingerprint"}
    return {tag: lineage[name] for name, tag in names.items() if name in lineage}


def pictures(run: RunDirectory, steps: int) -> list[Picture]:
    """Return the grids of a run's samples: those drawn while training, and of each sampler the final one.

    steps: the last training step, at which the final grids are shown.
    """
    found = []
    for file in sorted(run.samples.glob("*.png")):
        if match := re.fullmatch(r"step-(\d+)", file.stem):
            found.append(Picture(file, "samples", int(match[1])))
        else:
            found.append(Picture(file, re.sub(r"[^a-zA-Z0-9_\-. ]", "_", file.stem), steps))
    return found


def dataset_input(lineage: Mapping[str, str]) -> Any:
    """Return the training images of a lineage as MLflow's input of a run: names and digests, and no data."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = printable(lineage.get("data.source", "images"))
    names = {"count": "num_rows", "skipped": "skipped", "classes": "classes"}
    profile = {name: lineage[f"data.{of}"] for of, name in names.items() if f"data.{of}" in lineage}
    return DatasetInput(
        Dataset(
            name=(source.rstrip("/").rpartition("/")[2] or source)[:500],
            digest=lineage["data.fingerprint"][:_MOST_DIGEST],
            source_type="cm_ray",
            source=json.dumps({"uri": source, "fingerprint": lineage["data.fingerprint"]}),
            profile=json.dumps(profile),
        ),
        [InputTag("mlflow.data.context", "training")],
    )


def final_values(run: RunDirectory, started_ms: int) -> list[MetricValue]:
    """Return the final scores of a finished run as metrics at its last step, a second after its log's end.

    A metric that was scored while training under the same name therefore ends with the final score.
    started_ms: as of `SentState`.
    """
    result, rows = run.result(), run.read_metrics()
    seconds = max((float(row["seconds"]) for row in rows if "seconds" in row), default=0.0)
    times = [int(1000 * row["time"]) for row in rows if "time" in row]
    at = max([started_ms + int(1000 * seconds), *times]) + _AFTER_MS
    scores = [Score.from_file(row, run.result_file) for row in result["scores"]]
    found = [MetricValue(result["steps"], clean_name(score.metric), score.value, at) for score in scores]
    noise = result["clipped_noise"]
    if noise and scores:
        found.append(MetricValue(result["steps"], "share_of_noise", scores[0].value / noise, at))
    return found


def description(run: RunDirectory, address: str, run_id: str) -> str:
    """Return the card of a finished run's model for MLflow's pages, with its pictures among the artifacts.

    address: the model as commands take it.  run_id: of the MLflow run.
    """
    card = Card.of_run(run)
    shown = {
        grid.stem: artifact_address(run_id, grid.relative_to(run.root).as_posix())
        for grid in card.training.grids
        if grid.is_relative_to(run.root)
    }
    return card.markdown(address, pictures=shown)[:MOST_NOTE]


def artifact_address(run_id: str, path: str) -> str:
    """Return the address of an artifact of a run, relative to a page of MLflow's own server."""
    return "get-artifact?" + urlencode({"path": path, "run_uuid": run_id})


def picture_name(picture: Picture, time_ms: int) -> str:
    """Return how the path of MLflow's artifact of a picture begins, before a part that is random."""
    return f"images/{picture.key}+step+{picture.step}+timestamp+{time_ms}"
