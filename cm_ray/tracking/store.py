"""Addresses of MLflow stores, and calls of MLflow with short timeouts, no messages and no global settings."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError, setting
from cm_ray.extras import needs
from cm_ray.storage.sqlite import sqlite_address, sqlite_file

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_URI = setting("tracking_uri")
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def default_uri(folder: Path) -> str:
    """Return the address of the default store of the runs in `folder`: mlflow.db in it."""
    _needs_mlflow()
    return sqlite_address(folder / "mlflow.db")


def artifact_root(uri: str, folder: Path) -> str | None:
    """Return the address of artifacts of new experiments: mlartifacts beside the store, or in `folder`.

    None for a server, which chooses the place itself. Without an absolute address MLflow would write into the
    working directory.
    """
    if uri.startswith(("http:", "https:")):
        return None
    file = database_file(uri)
    return ((file.parent if file else folder) / "mlartifacts").absolute().as_uri()


def database_file(uri: str) -> Path | None:
    """Return the file of an SQLite store, or None for another kind of store."""
    return sqlite_file(uri)


def check_uri(uri: str, name: str = _URI) -> None:
    """Raise UserError when MLflow does not support this kind of store.

    name: the setting that the address is the value of.
    """
    _needs_mlflow()
    scheme, separator, rest = uri.partition("://")
    if not separator or not rest or scheme.partition("+")[0] not in _SCHEMES:
        raise UserError(
            f"{name} {uri!r} is not the address of an MLflow store; give http://HOST:PORT, "
            "sqlite:////ABSOLUTE/PATH.db, or none."
        )
    if scheme.startswith("http") and "@" in rest:
        raise UserError(
            f"{name} contains a password, which would be logged; put user name and password into "
            "$MLFLOW_TRACKING_USERNAME and $MLFLOW_TRACKING_PASSWORD instead."
        )


def check_model_name(name: str) -> None:
    """Raise UserError when a model cannot be registered under this name; an empty name is allowed."""
    if name and not re.fullmatch(r"[\w.-]+", name):
        raise UserError(
            f"{setting('tracking.model_name')} {name!r} may contain only letters, digits, '_', '.' and "
            "'-'; change it."
        )


@contextlib.contextmanager
def calling_mlflow(timeout_s: int) -> Iterator[None]:
    """Call MLflow with this timeout per request, without retries, messages or telemetry."""
    _needs_mlflow()
    settings = {**_SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s)}
    before = {name: os.environ.get(name) for name in settings}
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    os.environ.update(settings)
    import mlflow  # noqa: F401  (reads some of the settings, and sets up its loggers)

    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def open_client(uri: str) -> Any:
    """Return an MlflowClient of this store and its registry; MLflow's current store does not change."""
    from mlflow import MlflowClient

    if file := database_file(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _needs_mlflow() -> None:
    needs("mlflow", extra="track", instead=f"give {_URI} none")


def is_missing(error: Exception) -> bool:
    """Return True when MLflow says that something does not exist (it calls a missing alias invalid)."""
    code = getattr(error, "error_code", "")
    return code == "RESOURCE_DOES_NOT_EXIST" or (code == "INVALID_PARAMETER_VALUE" and "alias" in str(error))


def is_unanswered(error: Exception) -> bool:
    """Tell whether a server could not be reached, took too long, or said 429 or 5xx: it may answer later."""
    status = int(getattr(getattr(error, "response", None), "status_code", 0))
    return "ConnectionPool(" in str(error) or status == 429 or status >= 500


def brief(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters, without a full stop."""
    if "ConnectionPool(" in str(error):  # the message of urllib3 is long
        return "it does not answer"
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
