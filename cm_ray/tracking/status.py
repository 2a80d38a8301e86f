"""The end state of an MLflow run, and the result of registering a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""The end states of an MLflow run that cm_ray sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of a model in MLflow's model registry."""

    name: str
    """Name of the registered model."""
    version: str
    """Version number, as text."""
    champion: bool
    """True when the alias `champion` points to this version now."""
    reason: str
    """One sentence that says why the alias moved or stayed."""

    @property
    def uri(self) -> str:
        """Address ``models:/NAME/VERSION``, for `fetch_model` and for MLflow's own tools."""
        return f"models:/{self.name}/{self.version}"


def status_of(error: BaseException | None) -> Status:
    """Return the end state of a run that ended with an exception, or without one.

    A person, or the program around a training, stops a run by an interrupt or by leaving its loop: that is no
    failure.
    """
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt | GeneratorExit) else "FAILED"
