"""The tracker that sends a run directory to MLflow."""

from __future__ import annotations

import dataclasses
from typing import Any

from cm_ray.metrics.score import Score
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.console import command
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import flatten
from cm_ray.tracking.registry import model_digest, register_model
from cm_ray.tracking.remote_run import METRICS_PER_CALL, RemoteRun, chunks
from cm_ray.tracking.sent_state import advance, artifacts, new_files, new_values
from cm_ray.tracking.status import Registered, Status

_TRANSFER_TIMEOUT_S = 120


class MlflowTracker:
    """Sends one run directory to one MLflow store; tracking.json stores what was sent. See `Tracker`.

    While the store does not answer, `sync` returns at once, except for one attempt after 5 s, 10 s, 20 s ...
    5 min, which waits 5 s at most. One sentence about the outage goes to stderr.
    """

    def __init__(self, config: Recipe, run: RunDirectory, uri: str, *, strict: bool = False) -> None:
        self.config, self.run = config, run
        self.remote = RemoteRun(
            run.tracking_file,
            uri,
            name=config.name,
            experiment=config.tracking.experiment,
            parent=config.tracking.parent_run,
            strict=strict,
            meanwhile=f"training goes on, the log is kept in {run.root}, and "
            f"`{command('cm-ray', 'track', run.root)}` sends it later",
        )

    def sync(self) -> None:
        """Send what is new: parameters and tags, rows of the log, pictures and results."""
        if self.remote.due():
            self.remote.attempt(self._send_all)

    def register(self, score: Score | None) -> Registered | None:
        """Register the run's model with its score; what was registered before stays unchanged.

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
        state, name = self.remote.state, self.config.tracking.model_name
        if state.version.get("content") == content and state.version["name"] == name:
            return Registered(**{key: value for key, value in state.version.items() if key != "content"})
        registered = register_model(
            self.remote.client(),
            name,
            self.run.model,
            run_id=state.run_id,
            score=score,
            lineage=self._lineage(),
        )
        state.version = {**dataclasses.asdict(registered), "content": content}
        self.remote.remember()
        return registered

    def _send_parameters(self) -> None:
        if not self.remote.state.described:
            self.remote.send_params(flatten(self.config))
            self.remote.state.described = True
            self.remote.remember()

    def _send_rows(self) -> None:
        state = self.remote.state
        for chunk in chunks(new_values(self.run.read_metrics(), state), METRICS_PER_CALL):
            self.remote.send_values(chunk)
            advance(state, chunk)
            self.remote.remember()

    def _send_lineage(self) -> None:
        """Send the lineage as tags before its file, so that an interruption in between loses no tags."""
        if any(new_files(self.run.root, [self.run.lineage_file], self.remote.state)):
            self.remote.send_tags(self._lineage())

    def _lineage(self) -> dict[str, Any]:
        return dict(self.run.lineage()) if self.run.lineage_file.is_file() else {}
