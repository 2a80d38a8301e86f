"""Checks that a process on another node sees the same folder, before it reads or writes there.

A folder that is not on shared storage exists on every node, with other files in it: what is written there is
lost to all others. A file that one process has seen is a witness for the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cm_ray.errors import UserError
from cm_ray.remote.files import read_bytes
from cm_ray.storage.files import remove

_NAME = ".seen-"
_PATIENCE_S = 5.0
"""Seconds in which network storage shows a new file to all nodes."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A file and its content, as one process has seen it."""

    file: Path
    sha256: str

    @classmethod
    def of(cls, file: Path) -> Witness:
        """Return a witness of the folder of a file. Raises FileNotFoundError when there is no file."""
        return cls(file, _digest(file))

    def check(self) -> None:
        """Raise UserError, naming this node and the folder, when this process does not see the same file."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                if _digest(self.file) == self.sha256:
                    return
            if time.monotonic() > until:
                break
            time.sleep(0.2)
        raise UserError(
            f"{self.file.parent} on node {platform.node()} is not the folder that the command uses; choose a "
            "folder on storage that all nodes share, or mount that storage on all of them."
        )


@contextlib.contextmanager
def witnessed(folder: Path) -> Iterator[Witness]:
    """Write a file with a new name and a new content into a folder; it is removed after the block.

    One process at a time may do so in a folder: files that killed processes left are removed, too.
    """
    for left in folder.glob(f"{_NAME}*"):
        remove(left)
    token = secrets.token_hex(16)
    file = folder / (_NAME + token)  # a new name, since network storage remembers what was missing
    file.write_text(token)
    try:
        yield Witness.of(file)
    finally:
        remove(file)


def _digest(file: Path) -> str:
    return hashlib.sha256(read_bytes(file)).hexdigest()
