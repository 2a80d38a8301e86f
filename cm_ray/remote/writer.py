"""A writer of objects that looks for its right to write before every write."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from cm_ray.remote.lease import Token
from cm_ray.remote.objects import ONE_PUT, Conflict, Objects, Stored


class Writer:
    """Writes objects as long as the lease has the epoch of its token.

    Objects that are small are written on the condition that they are as this writer knows them, so that a
    write that was on its way when the lease passed on cannot replace what the next holder wrote. A small
    object that has the content already is not written again.
    """

    def __init__(self, objects: Objects, token: Token | None = None) -> None:
        self.objects, self.token = objects, token
        self._etags: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}

    def sees(self, listed: dict[str, Stored]) -> None:
        """Remember which objects there are."""
        self._etags |= {key: stored.etag for key, stored in listed.items()}

    def has(self, key: str, file: Path) -> None:
        """Remember that an object has the content of a file."""
        if file.stat().st_size <= ONE_PUT:
            self._contents[key] = _digest(file.read_bytes())

    def put(self, key: str, content: bytes | Path) -> str:
        """Write an object and return its ETag.

        Raises UserError when the lease has passed on, and FileNotFoundError when the file is gone.
        """
        if isinstance(content, Path) and content.stat().st_size > ONE_PUT:
            self._check()
            self._etags[key] = self.objects.write(key, content)
            return self._etags[key]
        data = content.read_bytes() if isinstance(content, Path) else content
        if self._contents.get(key) == _digest(data):
            return self._etags[key]
        self._check()
        try:
            self._etags[key] = self._on_condition(key, data)
        except Conflict:  # written late by a holder before this one, while this one has the lease
            self._check()
            self._etags.pop(key, None)
            with contextlib.suppress(FileNotFoundError):
                self._etags[key] = self.objects.stored(key).etag
            self._etags[key] = self._on_condition(key, data)
        self._contents[key] = _digest(data)
        return self._etags[key]

    def remove(self, key: str) -> None:
        """Remove an object, if there is one. Raises UserError when the lease has passed on."""
        if key in self._etags:
            self._check()
            self.objects.remove(key)
            del self._etags[key]
            self._contents.pop(key, None)

    def _on_condition(self, key: str, data: bytes) -> str:
        if etag := self._etags.get(key):
            return self.objects.replace(key, data, etag)
        return self.objects.create(key, data)

    def _check(self) -> None:
        if self.token is None:
            raise AssertionError("a copy without a lease is only read")
        self.token.check(self.objects)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
