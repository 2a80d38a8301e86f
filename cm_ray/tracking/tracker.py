"""The tracker of a run, which sends the contents of the run directory.

Training appends rows to metrics.jsonl and writes pictures and results; the tracker reads these files and
sends what is new whenever `sync` is called. So a server that does not answer never stops the training, and
`resend` can send everything later with the same code.
"""

from __future__ import annotations

from typing import Protocol

from cm_ray.errors import UserError, setting
from cm_ray.metrics.score import Score
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.tracking.status import Registered, Status
from cm_ray.tracking.store import check_model_name, check_uri, default_uri


class Tracker(Protocol):
    """Sends one run directory to a tracking server."""

    def sync(self) -> None:
        """Send what is new in the run directory. Never raises because of the server."""
        ...

    def register(self, score: Score | None) -> Registered | None:
        """Register the run's model, once.

        Returns None when this is not configured or the server does not answer.
        """
        ...

    def finish(self, status: Status) -> None:
        """Send what is new and close the run."""
        ...


class NullTracker:
    """A tracker that sends nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def register(self, score: Score | None) -> Registered | None:
        """Register nothing."""
        return None

    def finish(self, status: Status) -> None:
        """Do nothing."""


def open_tracker(config: Recipe, run: RunDirectory, *, strict: bool = False) -> Tracker:
    """Return the tracker of a run; it contacts the server at the first `sync`.

    strict: raise UserError when the server does not answer, instead of one sentence on stderr. Raises
    UserError on a tracking uri or a model name that MLflow does not support.
    """
    if config.tracking.uri == "none" or (run.copied is not None and not config.tracking.uri):
        return NullTracker()  # the default store is beside the run, and a database cannot be at an address
    uri = config.tracking.uri or default_uri(run.root.parent)
    check_uri(uri, setting("tracking.uri"))
    check_model_name(config.tracking.model_name)
    from cm_ray.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker(config, run, uri, strict=strict)


def resend(run: RunDirectory) -> Registered | None:
    """Send everything of a run that was not sent during training; register its model if the run is finished.

    The model is registered with the first score of result.json ("scores"). Raises UserError when `run` is not
    a run directory, is not tracked or still training, or when the server does not answer.
    """
    config = run.config()
    if config.tracking.uri == "none":
        raise UserError(
            f"{run.root} is not tracked, as its {setting('tracking.uri')} is none; edit its config.json."
        )
    with run.locked():
        tracker = open_tracker(config, run, strict=True)
        if not run.result_file.is_file():
            tracker.finish("FAILED")
            return None
        scores = run.result()["scores"] or [None]
        registered = tracker.register(Score.from_file(scores[0], run.result_file) if scores[0] else None)
        tracker.finish("FINISHED")
        return registered
