"""Folders on local disks that last as long as a process, for copies of what is at an address."""

from __future__ import annotations

import atexit
import fcntl
import os
import tempfile
import time
from pathlib import Path

from cm_ray.storage.files import cache_root, remove

_HELD: list[int] = []
"""Handles of the locks of this process; they close when it ends, however it ends."""
_NEW_S = 5.0


def scratch_folder() -> Path:
    """Return a new empty folder in the cache, which is removed when this process ends.

    Folders of processes that were killed are removed first.
    """
    root = cache_root() / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    for lock in root.glob("*.lock"):
        _remove_if_free(lock)
    handle, name = tempfile.mkstemp(".lock", "", root)
    fcntl.flock(handle, fcntl.LOCK_EX)
    _HELD.append(handle)
    folder = Path(name).with_suffix("")
    folder.mkdir()
    atexit.register(_end, os.getpid(), folder)
    return folder


def _remove_if_free(lock: Path) -> None:
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - lock.stat().st_mtime > _NEW_S:  # its process may be about to lock it
            remove(lock.with_suffix(""))
            remove(lock)
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        os.close(handle)


def _end(pid: int, folder: Path) -> None:
    if os.getpid() == pid:  # and not in a process that was forked
        remove(folder)
        remove(folder.with_suffix(".lock"))
