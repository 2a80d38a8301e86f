"""The tracker that sends a run directory to MLflow."""

from __future__ import annotations

import dataclasses
from functools import partial

from cm_ray.metrics.score import Score
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.console import command
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import flatten
from cm_ray.tracking.machine import MachineUse
from cm_ray.tracking.pages import (
    dataset_input,
    description,
    final_values,
    lineage_tags,
    pictures,
)
from cm_ray.tracking.registry import Registration, model_digest, register_model
from cm_ray.tracking.remote_run import METRICS_PER_CALL, RemoteRun, chunks
from cm_ray.tracking.sent_state import MetricValue, advance, artifacts, new_files, new_values
from cm_ray.tracking.status import Registered, Status

_TRANSFER_TIMEOUT_S = 120


class MlflowTracker:
    """Sends one run directory to one MLflow store; tracking.json stores what was sent. See `Tracker`.

    While the store does not answer, `sync` returns at once, except for one attempt after 5 s, 10 s, 20 s ...
    5 min, which waits 5 s at most. One sentence about the outage goes to stderr.
    """

    def __init__(self, config: Recipe, run: RunDirectory, uri: str, *, strict: bool = False) -> None:
        self.config, self.run = config, run
        self.machine = MachineUse()
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
        """Send what is new: parameters and tags, rows of the log, pictures, results and a description."""
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
        self.remote.send_pictures(pictures(self.run, self.config.steps))
        self._send_results()
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
            Registration(
                name=name,
                model=self.run.model,
                run_id=state.run_id,
                score=score,
                noise=self._noise(),
                tags=lineage_tags(self._lineage()),
                finals=tuple(self._finals()),
                describe=partial(description, self.run, run_id=state.run_id),
            ),
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

        if use := self.machine.values(state.started_ms):
            self.remote.send_values(use)

    def _send_lineage(self) -> None:
        """Send the lineage as tags and as a data set before its file, so that an interruption loses none."""
        if any(new_files(self.run.root, [self.run.lineage_file], self.remote.state)):
            lineage = self._lineage()
            self.remote.send_tags(lineage_tags(lineage))
            self.remote.client().log_inputs(self.remote.state.run_id, [dataset_input(lineage)])

    def _send_results(self) -> None:
        """Send final scores and a description before the file of the results."""
        if any(new_files(self.run.root, [self.run.result_file], self.remote.state)):
            if values := self._finals():
                self.remote.send_values(values)
            self.remote.describe(description(self.run, self.run.place, self.remote.state.run_id))

    def _finals(self) -> list[MetricValue]:
        return final_values(self.run, self.remote.state.started_ms) if self.run.result_file.is_file() else []

    def _noise(self) -> float | None:
        return self.run.result()["clipped_noise"] if self.run.result_file.is_file() else None

    def _lineage(self) -> dict[str, str]:
        return dict(self.run.lineage()) if self.run.lineage_file.is_file() else {}
