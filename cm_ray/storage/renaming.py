"""Renaming onto what is there already, for files and for folders."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Arguments of Linux's renameat2: paths are relative to the working directory; exchange the two."""


def put_at(aside: Path, path: Path) -> None:
    """Rename `aside` to `path`; when both are folders, the older one is at `aside` afterwards.

    Folders change places in one step, so that `path` holds one or the other at any time. On file systems that
    cannot exchange two names there is a moment with neither. Raises OSError, leaving the older one at `path`.
    """
    if not (aside.is_dir() and path.is_dir()):
        aside.replace(path)
    elif not _exchanged(aside, path):  # a folder cannot be renamed onto a full one
        old = aside.with_name(f"{aside.name}.old.part")
        path.rename(old)
        try:
            aside.rename(path)
        except OSError:
            old.rename(path)
            raise
        old.rename(aside)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return False where system or file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    status: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return status == 0
