"""The MLflow run of a folder: created once, found again later, and contacted only while its store answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cm_ray.data.interface.names import printable
from cm_ray.errors import UserError, setting
from cm_ray.tracking.pages import KIND, KIND_TAG, NOTE_TAG, Picture, origin_tags, picture_name
from cm_ray.tracking.sent_state import MetricValue, SentState, clean_name, new_files, stamp_of
from cm_ray.tracking.status import Status
from cm_ray.tracking.store import (
    artifact_root,
    brief,
    calling_mlflow,
    is_missing,
    is_unanswered,
    open_client,
)

T = TypeVar("T")

KEY_TAG, PARENT_TAG = "cm_ray.key", "mlflow.parentRunId"
TIMEOUT_S, _STRICT_TIMEOUT_S = 5, 60
METRICS_PER_CALL, _ENTRIES_PER_CALL = 1000, 100
"""Limits of MLflow on metrics, and on parameters or tags, in one call."""
_FIRST_WAIT_S, _LAST_WAIT_S, _PAUSE_S = 5.0, 300.0, 1.0


class RemoteRun:
    """One MLflow run in the store at `uri`; the file `tracking` stores which run it is and what was sent.

    The key of the run is stored before the run is created, so that an interruption leaves no second run; a
    run that was deleted in the store is created again. All calls of the store happen in an `attempt`, which
    reports an outage once on stderr; after a failure, `due` allows an attempt after 5 s, 10 s, 20 s ... 5
    min.
    """

    def __init__(
        self,
        tracking: Path,
        uri: str,
        *,
        name: str,
        experiment: str,
        meanwhile: str,
        parent: str = "",
        strict: bool = False,
    ) -> None:
        """Prepare the run without contacting the store.

        meanwhile: what happens to the work while the store does not answer, for stderr.  parent: id of the
        parent MLflow run; empty leaves it unchanged.  strict: raise UserError on an outage,
        and allow each request 60 s instead of 5 s.
        """
        self.tracking, self.uri = tracking, uri
        self.state = SentState.fresh(uri)
        self._name, self._experiment, self._parent = name, experiment, parent
        self._meanwhile, self._strict = meanwhile, strict
        self._least_timeout_s = _STRICT_TIMEOUT_S if strict else 0
        self._client: Any = None
        self._warned = False
        self._wait_s, self._retry_at = _FIRST_WAIT_S, 0.0

    def due(self) -> bool:
        """Return True when an attempt is allowed: always, except for a while after a failure."""
        return time.monotonic() >= self._retry_at

    def attempt(
        self, action: Callable[[], T], timeout_s: int = TIMEOUT_S, patience_s: float = 0.0
    ) -> T | None:
        """Return what `action` returns, or None when the store is away.

        timeout_s: of each request.  patience_s: how long to begin `action` again while the server does not
        answer (`is_unanswered`), as one that is starting or busy; a request may take what is left of it, and
        stderr says what is waited for. `action` must not mind to be begun again.
        """
        until, said = time.monotonic() + patience_s, False
        while True:
            left_s = until - time.monotonic()
            try:
                with calling_mlflow(max(self._least_timeout_s, timeout_s, int(left_s))):
                    result = action()
            except Exception as error:  # whatever goes wrong in here, the work goes on
                self._client = None
                if left_s < _PAUSE_S or not is_unanswered(error):
                    self._failed(error)
                    return None
                if not said:
                    self._say_waiting(patience_s)
                said = True
                time.sleep(_PAUSE_S)
                continue
            self._wait_s, self._retry_at, self._warned = _FIRST_WAIT_S, 0.0, False
            return result

    def client(self) -> Any:
        """Find or create the MLflow run, set it to running, and return the store's client."""
        if self._client is not None:
            return self._client
        client = open_client(self.uri)
        self.state = SentState.read(self.tracking, self.uri)
        if self.state.run_id and not _is_active(client, self.state.run_id):
            self.state = SentState.fresh(self.uri)  # it was deleted there; the new run receives everything
        if not self.state.run_id:
            self.remember()
            made = self._find_or_make(client)
            self.state.run_id, self.state.started_ms = made.info.run_id, made.info.start_time
            self.remember()
        self._put_in_order(client)
        self._client = client
        return client

    def remember(self) -> None:
        """Write the state of what was sent to tracking.json."""
        self.state.write(self.tracking)

    def send_params(self, values: Mapping[str, Any]) -> None:
        """Send parameters; MLflow refuses a parameter that it has with another value."""
        from mlflow.entities import Param

        params = [Param(clean_name(name), printable(str(value))) for name, value in values.items()]
        for chunk in chunks(params, _ENTRIES_PER_CALL):
            self.client().log_batch(self.state.run_id, params=chunk)

    def send_tags(self, values: Mapping[str, Any]) -> None:
        """Send tags; they replace tags of the same name."""
        from mlflow.entities import RunTag

        tags = [RunTag(clean_name(name), printable(str(value))) for name, value in values.items()]
        for chunk in chunks(tags, _ENTRIES_PER_CALL):
            self.client().log_batch(self.state.run_id, tags=chunk)

    def send_values(self, values: list[MetricValue]) -> None:
        """Send at most METRICS_PER_CALL numbers."""
        from mlflow.entities import Metric

        metrics = [Metric(v.name, v.value, v.time_ms, v.step) for v in values]
        self.client().log_batch(self.state.run_id, metrics=metrics)

    def send_files(self, files: Iterable[Path]) -> None:
        """Send artifacts that are new or changed, under their paths relative to the folder of `tracking`."""
        client = self.client()
        for file, path, stamp in new_files(self.tracking.parent, files, self.state):
            folder = path.rpartition("/")[0] or None
            client.log_artifact(self.state.run_id, str(file), artifact_path=folder)
            self.state.files[path] = stamp
            self.remember()

    def send_pictures(self, pictures: Iterable[Picture]) -> None:
        """Send pictures that are new or changed as MLflow's images, which it shows with a slider of steps.

        A picture that was sent before an interruption, which kept that from being stored, is not repeated.
        """
        client, there = self.client(), None
        for picture in pictures:
            path, stamp = stamp_of(self.tracking.parent, picture.file)
            if self.state.pictures.get(path) == stamp:
                continue
            if there is None:
                listed = client.list_artifacts(self.state.run_id, "images")
                there = {item.path.rpartition("+")[0] for item in listed}
            time_ms = picture.file.stat().st_mtime_ns // 1_000_000
            if picture_name(picture, time_ms) not in there:
                self._send_picture(client, picture, time_ms)
            self.state.pictures[path] = stamp
            self.remember()

    def describe(self, markdown: str) -> None:
        """Set the description that MLflow shows above a run."""
        self.client().set_tag(self.state.run_id, NOTE_TAG, "\n".join(map(printable, markdown.splitlines())))

    def terminate(self, status: Status) -> None:
        """Close the run."""
        self.client().set_terminated(self.state.run_id, status)

    def _send_picture(self, client: Any, picture: Picture, time_ms: int) -> None:
        from PIL import Image

        with Image.open(picture.file, formats=["PNG"]) as image:
            client.log_image(
                self.state.run_id,
                image,
                key=picture.key,
                step=picture.step,
                timestamp=time_ms,
                synchronous=True,
            )

    def _failed(self, error: Exception) -> None:
        """Say or raise that an attempt failed, and put the next one off."""
        if self._strict:
            raise UserError(
                f"Could not send {self.tracking.parent} to {self.uri} ({brief(error)}); try again later."
            ) from error
        self._warn(error)
        self._retry_at = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LAST_WAIT_S)

    def _say_waiting(self, patience_s: float) -> None:
        print(
            f"MLflow at {self.uri} does not answer; waiting up to {patience_s:.0f} s for it, "
            f"to send {self.tracking.parent}. Ctrl-C ends the waiting.",
            file=sys.stderr,
        )

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            why = f"Could not reach MLflow at {self.uri} ({brief(error)})"
            print(f"{why}; {self._meanwhile}.", file=sys.stderr)
        self._warned = True

    def _find_or_make(self, client: Any) -> Any:
        experiment = self._experiment_id(client)
        mine = f"tags.`{KEY_TAG}` = '{self.state.key}'"
        if found := client.search_runs([experiment], filter_string=mine, max_results=1):
            return found[0]
        tags = {KEY_TAG: self.state.key, **origin_tags()}
        tags |= {PARENT_TAG: self._parent} if self._parent else {}
        return client.create_run(experiment, tags=tags, run_name=self._name)

    def _put_in_order(self, client: Any) -> None:
        """Set the run's status to running, and its parent."""
        run = client.get_run(self.state.run_id)
        if run.info.status != "RUNNING":
            client.update_run(self.state.run_id, status="RUNNING")
        if self._parent and run.data.tags.get(PARENT_TAG) != self._parent:
            client.set_tag(self.state.run_id, PARENT_TAG, self._parent)

    def _experiment_id(self, client: Any) -> str:
        from mlflow.exceptions import MlflowException

        name = self._experiment
        if (found := client.get_experiment_by_name(name)) is None:
            try:
                root = artifact_root(self.uri, self.tracking.parent.parent)
                return str(client.create_experiment(name, artifact_location=root, tags={KIND_TAG: KIND}))
            except MlflowException:  # another process was faster
                if (found := client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {name!r} was deleted there; choose another {setting('tracking.experiment')}"
            )
        if KIND_TAG not in found.tags:
            client.set_experiment_tag(found.experiment_id, KIND_TAG, KIND)
        return str(found.experiment_id)


def chunks(items: list[T], size: int) -> Iterator[list[T]]:
    """Cut a list into pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _is_active(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if is_missing(error):
            return False
        raise
