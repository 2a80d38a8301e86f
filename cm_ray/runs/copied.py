"""The requests that a run directory makes of the address that it is a copy of."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from cm_ray.remote.lease import Token


class Copied(Protocol):
    """The address that a run directory is a copy of, on this machine and for this process."""

    @property
    def address(self) -> str:
        """The address."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lease of the address, with the run's records here; write all that is new at the end."""

    def lent(self) -> contextlib.AbstractContextManager[Token]:
        """Lend the right to write to another process, with a new epoch; copy what it wrote at the end."""

    def publish(self) -> None:
        """Write what is new to the address, in the background."""

    def wait(self) -> None:
        """Wait until it is written."""

    def fetch(self, path: Path) -> None:
        """Copy a file or a folder of the run from the address."""

    def follow(self, *, last: bool) -> None:
        """Copy new rows of the log that another process writes."""
