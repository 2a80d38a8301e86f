"""The tracker that tells MLflow."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cm_ray.config import TrainConfig, flatten
from cm_ray.errors import UserError
from cm_ray.files import read_json
from cm_ray.metrics.score import Score
from cm_ray.run_directory import RunDirectory
from cm_ray.tracking.progress import Told, advance, clean_name, new_files, new_values
from cm_ray.tracking.registry import model_digest, register_model
from cm_ray.tracking.store import artifact_root, brief, calling_mlflow, is_missing, open_client
from cm_ray.tracking.tracker import Registered, Status

T = TypeVar("T")

KEY_TAG = "cm_ray.key"
_METRICS_PER_CALL, _ENTRIES_PER_CALL = 1000, 100  # MLflow's limits
_TIMEOUT_S, _TRANSFER_TIMEOUT_S = 5, 120
_FIRST_WAIT_S, _LAST_WAIT_S = 5.0, 300.0


class MlflowTracker:
    """Tells one MLflow store about one run directory, and remembers in tracking.json how far; see `Tracker`.

    While the store is away `sync` returns at once, but for one attempt after 5 s, 10 s, 20 s ... 5 min,
    each of which waits 5 s at most; the outage is said once on stderr.
    """

    def __init__(self, config: TrainConfig, run: RunDirectory, uri: str, *, strict: bool = False) -> None:
        self.config, self.run, self.uri, self.strict = config, run, uri, strict
        self.told = Told.fresh(uri)
        self._client: Any = None
        self._warned = False
        self._wait_s, self._retry_at = _FIRST_WAIT_S, 0.0

    def sync(self) -> None:
        """Send what is new: parameters and tags, rows of the log, pictures and results."""
        if time.monotonic() >= self._retry_at:
            self._attempt(self._send_all, _TIMEOUT_S)

    def register(self, score: Score | None) -> Registered | None:
        """Register the run's model with its score; what was registered before stays as it is.

        Raises UserError when the run has no model.
        """
        if not self.config.tracking.model_name:
            return None
        content = model_digest(self.run.model)
        return self._attempt(lambda: self._register(score, content), _TRANSFER_TIMEOUT_S)

    def finish(self, status: Status) -> None:
        """Send what is new and close the run, even if the last attempt failed a moment ago."""
        self._attempt(lambda: self._finish(status), _TIMEOUT_S)

    def _attempt(self, action: Callable[[], T], timeout_s: int) -> T | None:
        try:
            with calling_mlflow(timeout_s):
                result = action()
        except Exception as error:  # whatever goes wrong in here, the training goes on
            self._client = None
            if self.strict:
                raise UserError(
                    f"Could not tell {self.uri} about {self.run.root}: {brief(error)}."
                ) from error
            self._warn(error)
            self._retry_at = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, _LAST_WAIT_S)
            return None
        self._wait_s, self._retry_at, self._warned = _FIRST_WAIT_S, 0.0, False
        return result

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            print(
                f"Could not tell MLflow at {self.uri} ({brief(error)}); training goes on, the log is kept "
                f"in {self.run.root}, and `python jobs/track.py {self.run.root}` sends it later.",
                file=sys.stderr,
            )
        self._warned = True

    def _send_all(self) -> None:
        client = self._connected()
        self._send_parameters(client)
        self._send_rows(client)
        self._send_files(client)

    def _finish(self, status: Status) -> None:
        self._send_all()
        self._connected().set_terminated(self.told.run_id, status)

    def _register(self, score: Score | None, content: str) -> Registered:
        self._send_all()
        version = self.told.version
        if version.get("content") == content and version["name"] == self.config.tracking.model_name:
            return Registered(**{name: value for name, value in version.items() if name != "content"})
        registered = register_model(
            self._connected(),
            self.config.tracking.model_name,
            self.run.model,
            run_id=self.told.run_id,
            score=score,
            lineage=self._lineage(),
        )
        self.told.version = {**dataclasses.asdict(registered), "content": content}
        self._remember()
        return registered

    def _connected(self) -> Any:
        """Return the client, with the MLflow run found again or made."""
        if self._client is not None:
            return self._client
        client = open_client(self.uri)
        self.told = Told.read(self.run.tracking_file, self.uri)
        if self.told.run_id and not _is_active(client, self.told.run_id):
            self.told = Told.fresh(self.uri)  # it was deleted there: a new one is told everything
        if not self.told.run_id:
            self._remember()
            made = self._find_or_make_run(client)
            self.told.run_id, self.told.started_ms = made.info.run_id, made.info.start_time
            self._remember()
        if client.get_run(self.told.run_id).info.status != "RUNNING":
            client.update_run(self.told.run_id, status="RUNNING")
        self._client = client
        return client

    def _find_or_make_run(self, client: Any) -> Any:
        experiment = self._experiment(client)
        mine = f"tags.`{KEY_TAG}` = '{self.told.key}'"
        if found := client.search_runs([experiment], filter_string=mine, max_results=1):
            return found[0]
        return client.create_run(experiment, tags={KEY_TAG: self.told.key}, run_name=self.config.name)

    def _experiment(self, client: Any) -> str:
        from mlflow.exceptions import MlflowException

        name = self.config.tracking.experiment
        if (found := client.get_experiment_by_name(name)) is None:
            try:
                root = artifact_root(self.uri, self.run.root.parent)
                return str(client.create_experiment(name, artifact_location=root))
            except MlflowException:  # another run was faster
                if (found := client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {name!r} was deleted there; choose another --tracking.experiment"
            )
        return str(found.experiment_id)

    def _send_parameters(self, client: Any) -> None:
        if self.told.described:
            return
        from mlflow.entities import Param

        params = [Param(clean_name(path), str(value)) for path, value in flatten(self.config).items()]
        for part in _parts(params, _ENTRIES_PER_CALL):
            client.log_batch(self.told.run_id, params=part)
        self.told.described = True
        self._remember()

    def _send_rows(self, client: Any) -> None:
        from mlflow.entities import Metric

        values = new_values(self.run.read_metrics(), self.told)
        for part in _parts(values, _METRICS_PER_CALL):
            metrics = [Metric(v.name, v.value, v.time_ms, v.step) for v in part]
            client.log_batch(self.told.run_id, metrics=metrics)
            advance(self.told, part)
            self._remember()

    def _send_files(self, client: Any) -> None:
        for file, path, stamp in new_files(self.run, self.told):
            if file == self.run.lineage_file:
                self._send_tags(client)
            folder = path.rpartition("/")[0] or None
            client.log_artifact(self.told.run_id, str(file), artifact_path=folder)
            self.told.files[path] = stamp
            self._remember()

    def _send_tags(self, client: Any) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(clean_name(name), str(value)) for name, value in self._lineage().items()]
        for part in _parts(tags, _ENTRIES_PER_CALL):
            client.log_batch(self.told.run_id, tags=part)

    def _lineage(self) -> dict[str, Any]:
        return read_json(self.run.lineage_file) if self.run.lineage_file.is_file() else {}

    def _remember(self) -> None:
        self.told.write(self.run.tracking_file)


def _is_active(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if is_missing(error):
            return False
        raise


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
