"""Requests that come while a network works, which go on together when it is free."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Turns:
    """Lets those wait that come during the work, and lets all of them go at its end.

    Ray Serve closes a batch a moment after its first request, also when the network is busy for longer.
    Requests that come one by one would then be made one by one, and, since each client asks again when it has
    its answer, stay so.
    """

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()

    async def wait(self) -> None:
        """Wait for the end of the work that goes on now, if any does."""
        await self._free.wait()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Work inside of the block."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()
