"""tracking.json: the state of what a server has received, and what in a folder is new since then."""

from __future__ import annotations

import dataclasses
import math
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cm_ray.metrics.score import Score
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import MOST_RECORD, read_json, write_json


@dataclass(slots=True, kw_only=True)
class SentState:
    """The rows and files that the server at `uri` has received."""

    uri: str
    """The server or store; another one receives everything from the start."""
    key: str
    """Tag of the MLflow run, stored before the run is created: an interruption leaves no second run."""
    run_id: str = ""
    """Id of the MLflow run; empty before it is created."""
    started_ms: int = 0
    """Creation time of the MLflow run, the zero of the rows' times, so that a row sent twice is the same."""
    described: bool = False
    """True when the parameters were sent."""
    step: int = -1
    """All metrics of steps before this one were sent."""
    names: list[str] = field(default_factory=list)
    """Names of the metrics of `step` that were sent."""
    files: dict[str, str] = field(default_factory=dict)
    """Artifacts that were sent, by path in the folder, with size and modification time."""
    pictures: dict[str, str] = field(default_factory=dict)
    """Pictures that were sent as MLflow's images, as `files` has artifacts."""
    version: dict[str, Any] = field(default_factory=dict)
    """The registered version: the fields of `Registered`, and `content`, the digest of the model."""

    @classmethod
    def fresh(cls, uri: str) -> SentState:
        """Return the state of a server that has received nothing."""
        return cls(uri=uri, key=uuid.uuid4().hex)

    @classmethod
    def read(cls, file: Path, uri: str) -> SentState:
        """Return the state in a file; a fresh one when there is none or it is of another server."""
        found = cls.load(file)
        return found if found and found.uri == uri else cls.fresh(uri)

    @classmethod
    def load(cls, file: Path) -> SentState | None:
        """Return the state in a file; None when there is none. Raises UserError when it is damaged."""
        return cls(**read_json(file, _SHAPE, MOST_RECORD)) if file.is_file() else None

    def write(self, file: Path) -> None:
        """Write the state to a file atomically."""
        write_json(file, dataclasses.asdict(self))


_SHAPE = {
    "uri": str,
    "key": str,
    "run_id": str,
    "started_ms": int,
    "described": bool,
    "step": int,
    "names": [str],
    "files": {str: str},
    "pictures": {str: str},
    "version": ({}, {"name": str, "version": str, "champion": bool, "reason": str, "content": str}),
}
"""The shape of tracking.json."""


class MetricValue(NamedTuple):
    """One number of the log."""

    step: int
    """Training step."""
    name: str
    """Name of the metric."""
    value: float
    """The number."""
    time_ms: int
    """Unix time in milliseconds."""


def new_values(rows: list[dict[str, Any]], state: SentState) -> list[MetricValue]:
    """Return the numbers of the log that were not sent, in order, each (step, name) once.

    The time of a row is its "time" (Unix seconds), or else its "seconds" since the start of the run, or those
    of the row before it. So it is the same whenever the row is sent; MLflow drops only exact duplicates.
    """
    seen = {(state.step, name) for name in state.names}
    values, elapsed = [], 0.0
    for row in rows:
        step = int(row["step"])
        elapsed = float(row.get("seconds", elapsed))
        time_ms = int(1000 * row["time"]) if "time" in row else state.started_ms + int(1000 * elapsed)
        for name, value in _numbers(row):
            if step >= state.step and (step, name) not in seen:
                seen.add((step, name))
                values.append(MetricValue(step, name, value, time_ms))
    return values


def advance(state: SentState, sent: list[MetricValue]) -> None:
    """Record in `state` that these values, the next of the log, were sent."""
    last = sent[-1].step
    names = [value.name for value in sent if value.step == last]
    state.names = [*state.names, *names] if state.step == last else names
    state.step = last


def artifacts(run: RunDirectory) -> list[Path]:
    """Return the paths of a run's files that are sent as artifacts; some may not exist yet.

    Of the pictures, those that descriptions show; all are sent as images of the training's steps, too.
    """
    averages = [run.averages_file, *(run.root / f"averages.{kind}" for kind in ("md", "png"))]
    files = [run.config_file, run.lineage_file, run.result_file, *averages]
    return [*files, *sorted(run.samples.glob("final-*.png"))]


def new_files(root: Path, files: Iterable[Path], state: SentState) -> Iterator[tuple[Path, str, str]]:
    """Yield (file, path, stamp) of those files that exist and are new or changed.

    The path is relative to `root`; of a file outside of it, only the name.
    """
    for file in files:
        if not file.is_file():
            continue
        path, stamp = stamp_of(root, file)
        if state.files.get(path) != stamp:
            yield file, path, stamp


def stamp_of(root: Path, file: Path) -> tuple[str, str]:
    """Return the path of a file relative to `root` (of one outside of it, its name), and size and time."""
    status = file.stat()
    path = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return path, f"{status.st_size}-{status.st_mtime_ns}"


def clean_name(name: str) -> str:
    """Replace characters that MLflow does not accept in the name of a metric, a parameter or a tag."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _numbers(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if name in ("step", "time", "scores") or isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            yield clean_name(name), float(value)
    for score in row.get("scores", ()):
        if math.isfinite(score["value"]):
            yield clean_name(Score.from_file(score, "metrics.jsonl").metric), float(score["value"])
