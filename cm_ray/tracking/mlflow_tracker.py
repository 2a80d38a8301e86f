"""The tracker that tells MLflow."""

from __future__ import annotations

import dataclasses
from typing import Any

from cm_ray.metrics.score import Score
from cm_ray.recipes.config import TrainConfig, flatten
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import read_json
from cm_ray.tracking.progress import advance, artifacts, new_files, new_values
from cm_ray.tracking.registry import model_digest, register_model
from cm_ray.tracking.remote_run import METRICS_PER_CALL, RemoteRun, parts
from cm_ray.tracking.tracker import Registered, Status

_TRANSFER_TIMEOUT_S = 120


class MlflowTracker:
    """Tells one MLflow store about one run directory, and remembers in tracking.json how far; see `Tracker`.

    While the store is away `sync` returns at once, but for one attempt after 5 s, 10 s, 20 s ... 5 min,
    each of which waits 5 s at most; the outage is said once on stderr.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory, uri: str, *, strict: bool = False) -> None:
        self.config, self.run = config, run
        self.remote = RemoteRun(
            run.tracking_file,
            uri,
            name=config.name,
            experiment=config.tracking.experiment,
            parent=config.tracking.parent_run,
            strict=strict,
            meanwhile=f"training goes on, the log is kept in {run.root}, and "
            f"`cm-ray track {run.root}` sends it later",
        )

    def sync(self) -> None:
        """Send what is new: parameters and tags, rows of the log, pictures and results."""
        if self.remote.due():
            self.remote.attempt(self._send_all)

    def register(self, score: Score | None) -> Registered | None:
        """Register the run's model with its score; what was registered before stays as it is.

        Raises UserError when the run has no model.
        """
        if not self.config.tracking.model_name:
            return None
        content = model_digest(self.run.model)
        return self.remote.attempt(lambda: self._register(score, content), _TRANSFER_TIMEOUT_S)

    def finish(self, status: Status) -> None:
        """Send what is new and close the run, even if the last attempt failed a moment ago."""
        self.remote.attempt(lambda: self._finish(status))

    def _send_all(self) -> None:
        self.remote.client()
        self._send_parameters()
        self._send_rows()
        self._send_lineage()
        self.remote.send_files(artifacts(self.run))

    def _finish(self, status: Status) -> None:
        self._send_all()
        self.remote.terminate(status)

    def _register(self, score: Score | None, content: str) -> Registered:
        self._send_all()
        told, name = self.remote.told, self.config.tracking.model_name
        if told.version.get("content") == content and told.version["name"] == name:
            return Registered(**{key: value for key, value in told.version.items() if key != "content"})
        registered = register_model(
            self.remote.client(),
            name,
            self.run.model,
            run_id=told.run_id,
            score=score,
            lineage=self._lineage(),
        )
        told.version = {**dataclasses.asdict(registered), "content": content}
        self.remote.remember()
        return registered

    def _send_parameters(self) -> None:
        if not self.remote.told.described:
            self.remote.send_params(flatten(self.config))
            self.remote.told.described = True
            self.remote.remember()

    def _send_rows(self) -> None:
        told = self.remote.told
        for part in parts(new_values(self.run.read_metrics(), told), METRICS_PER_CALL):
            self.remote.send_values(part)
            advance(told, part)
            self.remote.remember()

    def _send_lineage(self) -> None:
        """Send the lineage as tags while its file is not sent: beforehand, so that a kill loses none."""
        if any(new_files(self.run.root, [self.run.lineage_file], self.remote.told)):
            self.remote.send_tags(self._lineage())

    def _lineage(self) -> dict[str, Any]:
        return read_json(self.run.lineage_file) if self.run.lineage_file.is_file() else {}
