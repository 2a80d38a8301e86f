"""The MLflow run of a folder that contains runs, such as a table or a sweep."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cm_ray.runs.directory import RunDirectory
from cm_ray.tracking.pages import MOST_NOTE, artifact_address
from cm_ray.tracking.remote_run import METRICS_PER_CALL, RemoteRun, chunks
from cm_ray.tracking.sent_state import MetricValue, clean_name, stamp_of
from cm_ray.tracking.status import Status, status_of
from cm_ray.tracking.store import check_uri, default_uri

PATIENCE_S = 120.0
"""Time that the end of a table or a sweep waits for a tracking server that does not answer."""


def group_of(run: RunDirectory, uri: str, experiment: str, folder: Path | None = None) -> RunGroup:
    """Return the MLflow run of the results in a run directory.

    uri: as of `RunGroup`; empty at an address turns tracking off, since the default store is a file beside
    the run. folder: where it is remembered, by default the directory.
    """
    uri = uri or ("none" if run.copied is not None else default_uri(run.root.parent))
    return RunGroup(folder or run.root, name=Path(run.place).name, uri=uri, experiment=experiment)


class RunGroup:
    """An MLflow run that is the parent of the runs in a folder.

    Give those runs `uri`, the same experiment, and `run_id` as their tracking.parent_run. tracking.json in
    the folder stores which MLflow run it is. When the store does not answer, one sentence goes to stderr and
    nothing is raised; what was logged meanwhile is sent with the next call that reaches the store.
    """

    def __init__(self, folder: Path, *, name: str, uri: str, experiment: str) -> None:
        """Prepare the group without contacting the store.

        uri: the tracking server or store; empty stands for mlflow.db beside the folder; "none" turns tracking
        off. Raises UserError on a uri that MLflow does not support.
        """
        self.folder = folder.absolute()
        self.uri = uri or default_uri(self.folder.parent)
        """Tracking server or store of this run and of the runs below it."""
        self._params: dict[str, str] = {}
        self._metrics: dict[str, float] = {}
        self._files: dict[Path, None] = {}
        self._note = ""
        self._remote: RemoteRun | None = None
        if uri != "none":
            check_uri(self.uri)
            self._remote = RemoteRun(
                self.folder / "tracking.json",
                self.uri,
                name=name,
                experiment=experiment,
                meanwhile=f"the work in {self.folder} goes on and its log is sent later",
            )

    @property
    def run_id(self) -> str:
        """Id of the MLflow run, created or found on first use; empty while the store has never answered."""
        if self._remote is None:
            return ""
        if self._remote.due():
            self._remote.attempt(self._remote.client)
        return self._remote.state.run_id

    def log(
        self,
        *,
        params: Mapping[str, Any] = {},
        metrics: Mapping[str, float] = {},
        files: Sequence[Path] = (),
        note: str = "",
    ) -> None:
        """Log parameters, metrics, files and a description of the whole folder.

        A parameter keeps its first value, as in MLflow; a metric shows its last finite value. A file is sent
        again when it has changed; a file outside of the folder is stored under its name.  note: Markdown,
        below which MLflow shows those of the files that are pictures; empty keeps the last one.
        """
        self._params = {clean_name(name): str(value) for name, value in params.items()} | self._params
        self._metrics |= {
            clean_name(name): float(value) for name, value in metrics.items() if math.isfinite(value)
        }
        self._files |= dict.fromkeys(file.absolute() for file in files)
        self._note = note or self._note
        if self._remote is not None and self._remote.due():
            self._remote.attempt(partial(self._send, self._remote))

    def finish(self, status: Status, patience_s: float = PATIENCE_S) -> None:
        """Send what is not sent and close the run, even if the last attempt failed a moment ago.

        This is the last chance, so a server that is starting or busy is waited for, `patience_s` seconds
        (PATIENCE_S = 120) at most, and stderr says so. A database is not waited for.
        """
        if self._remote is not None:
            self._remote.attempt(partial(self._finish, self._remote, status), patience_s=patience_s)

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Close the run after a block: as finished, failed, or, after an interrupt, killed."""
        try:
            yield
        except BaseException as error:
            self.finish(status_of(error))
            raise
        self.finish("FINISHED")

    def _send(self, remote: RemoteRun) -> None:
        """Send all logged values that the store does not have: the MLflow run may be a new one."""
        client = remote.client()
        known = client.get_run(remote.state.run_id).data
        remote.send_params({n: value for n, value in self._params.items() if n not in known.params})
        now_ms = int(1000 * time.time())
        changed = {n: value for n, value in self._metrics.items() if known.metrics.get(n) != value}
        values = [MetricValue(0, name, value, now_ms) for name, value in changed.items()]
        for chunk in chunks(values, METRICS_PER_CALL):
            remote.send_values(chunk)
        remote.send_files(self._files)
        if self._note:
            remote.describe(self._described(remote.state.run_id))

    def _described(self, run_id: str) -> str:
        """Return the note, cut to what MLflow stores, with the pictures among the artifacts."""
        names = [
            stamp_of(self.folder, file)[0] for file in self._files if file.suffix == ".png" and file.is_file()
        ]
        shown = "".join(f"\n\n![{Path(name).stem}]({artifact_address(run_id, name)})" for name in names)
        return self._note[: max(0, MOST_NOTE - len(shown))] + shown

    def _finish(self, remote: RemoteRun, status: Status) -> None:
        self._send(remote)
        remote.terminate(status)
