"""A thread that writes files one after another, while the training goes on."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable


class BackgroundWriter:
    """Writes in a thread, one file at a time; an error is raised by the next call of any method."""

    def __init__(self, name: str) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=name)
        self._pending: concurrent.futures.Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Call `write` in the thread, after the last call has ended. Raises the error of that one."""
        self.wait()
        self._pending = self._thread.submit(write)

    def wait(self) -> None:
        """Wait until the file is written. Raises the error of the thread."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Wait until the file is written, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
