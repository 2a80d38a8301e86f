"""The MLflow run of a folder of runs: a table, a sweep."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cm_ray.tracking.progress import Value, clean_name
from cm_ray.tracking.remote_run import METRICS_PER_CALL, RemoteRun, parts
from cm_ray.tracking.store import check_uri, default_uri
from cm_ray.tracking.tracker import Status

PATIENCE_S = 120.0
"""How long the end of a table or a sweep waits for a tracking server that does not answer."""


class Group:
    """The MLflow run under which the runs of a folder are shown.

    Give the runs in it `uri`, the same experiment, and `run_id` as their tracking.parent_run. It is found
    again by tracking.json in the folder. That the store is away is said once on stderr and never raised;
    what was logged meanwhile is sent with the next call that reaches it.
    """

    def __init__(self, folder: Path, *, name: str, uri: str, experiment: str) -> None:
        """Contact nobody yet.

        uri: the tracking server or store; empty: mlflow.db beside the folder; none: tell nobody.
        Raises UserError on a uri that MLflow does not take.
        """
        self.folder = folder.absolute()
        self.uri = uri or default_uri(self.folder.parent)
        """Where this run is and those under it belong."""
        self._params: dict[str, str] = {}
        self._metrics: dict[str, float] = {}
        self._files: dict[Path, None] = {}
        self._remote: RemoteRun | None = None
        if uri != "none":
            check_uri(self.uri)
            self._remote = RemoteRun(
                self.folder / "tracking.json",
                self.uri,
                name=name,
                experiment=experiment,
                meanwhile=f"the work in {self.folder} goes on, and what it tells is sent later",
            )

    @property
    def run_id(self) -> str:
        """The run's id, made or found again on first use; empty when it has none and the store is away."""
        if self._remote is None:
            return ""
        if self._remote.due():
            self._remote.attempt(self._remote.client)
        return self._remote.told.run_id

    def log(
        self,
        *,
        params: Mapping[str, Any] = {},
        metrics: Mapping[str, float] = {},
        files: Sequence[Path] = (),
    ) -> None:
        """Tell these of the folder as a whole.

        A parameter keeps its first value, as MLflow has it; of a metric the last finite one shows. A file
        is sent again when it has changed; one outside of the folder goes under its name.
        """
        self._params = {clean_name(name): str(value) for name, value in params.items()} | self._params
        self._metrics |= {
            clean_name(name): float(value) for name, value in metrics.items() if math.isfinite(value)
        }
        self._files |= dict.fromkeys(file.absolute() for file in files)
        if self._remote is not None and self._remote.due():
            self._remote.attempt(partial(self._send, self._remote))

    def finish(self, status: Status, patience_s: float = PATIENCE_S) -> None:
        """Send what is not sent and close the run, even if the last attempt failed a moment ago.

        This is the last chance, so a server that is starting or busy is waited for, `patience_s` seconds
        (PATIENCE_S = 120) at most, and stderr says so. A database is not waited for.
        """
        if self._remote is not None:
            self._remote.attempt(partial(self._finish, self._remote, status), patience_s=patience_s)

    def _send(self, remote: RemoteRun) -> None:
        """Send of all that was ever logged what the store does not know: the run may have been made anew."""
        client = remote.client()
        known = client.get_run(remote.told.run_id).data
        remote.send_params({n: value for n, value in self._params.items() if n not in known.params})
        now_ms = int(1000 * time.time())
        changed = {n: value for n, value in self._metrics.items() if known.metrics.get(n) != value}
        values = [Value(0, name, value, now_ms) for name, value in changed.items()]
        for part in parts(values, METRICS_PER_CALL):
            remote.send_values(part)
        remote.send_files(self._files)

    def _finish(self, remote: RemoteRun, status: Status) -> None:
        self._send(remote)
        remote.terminate(status)
