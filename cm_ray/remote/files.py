"""Files that may be at an address: read whole or in ranges, through the paths that local files have.

``Path("s3://bucket/x")`` keeps the address, with one slash; the functions here take it and local paths.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError
from cm_ray.remote.address import WRITABLE, checked_address, joined
from cm_ray.remote.objects import Conflict, Objects, Stored
from cm_ray.storage.files import is_address

_TAIL = 64 << 10
"""Bytes at the end of a file that are kept: Parquet files have their table of contents there."""


def is_there(file: Path) -> bool:
    """Return True for a file that exists."""
    if not is_address(file):
        return file.is_file()
    try:
        return _stored(file) is not None
    except FileNotFoundError:
        return False


def read_bytes(file: Path) -> bytes:
    """Return the content of a small file. Raises FileNotFoundError when there is none."""
    if not is_address(file):
        return file.read_bytes()
    objects, key = _object(file)
    return objects.read(key)[0]


def sizes(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Return the sizes of those files of a folder that exist, in bytes."""
    if not is_address(folder):
        return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    objects, key = _object(folder / "any")
    if objects.address.startswith(WRITABLE):
        listed = objects.list(key.rpartition("/")[0])
        return {name.rpartition("/")[2]: stored.size for name, stored in listed.items()}
    return {name: _stored(folder / name).size for name in names if is_there(folder / name)}


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Yield what pyarrow opens: a local path, or a file at an address whose ranges are read when asked for.

    Raises FileNotFoundError when there is no file at the address; UserError when it changes meanwhile.
    """
    if not is_address(file):
        yield file
        return
    try:
        yield _RemoteFile(file)
    except Conflict as conflict:
        raise UserError(f"{checked_address(file, write=False)} has changed while it was read.") from conflict


class _RemoteFile(io.RawIOBase):
    """A file at an address that is read in ranges."""

    def __init__(self, file: Path) -> None:
        self._objects, self._key = _object(file)
        self._stored, self._file, self._position = _stored(file), file, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stored.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into a buffer; return their number."""
        view = memoryview(buffer)
        start, stop = self._position, min(self._stored.size, self._position + len(view))
        if start >= stop:
            return 0
        kept = max(0, self._stored.size - _TAIL)
        if start >= kept:
            data = _tail(self._file, kept)[start - kept : stop - kept]
        else:
            data = self._objects.read_range(self._key, start, stop, self._stored.etag)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


@lru_cache(256)
def _tail(file: Path, start: int) -> bytes:
    objects, key = _object(file)
    stored = _stored(file)
    return objects.read_range(key, start, stored.size, stored.etag)


@lru_cache(4096)
def _stored(file: Path) -> Stored:
    """Return size and ETag of a file at an address, which this process takes as unchanged from then on."""
    objects, key = _object(file)
    return objects.stored(key)


def _object(file: Path) -> tuple[Objects, str]:
    """Return the objects of the bucket or the host of an address, and the key of a file there."""
    address = joined(checked_address(file.parent, write=False), file.name)
    scheme, _, rest = address.partition("://")
    host, _, key = rest.partition("/")
    if scheme == "az":  # az://account/container
        container, _, key = key.partition("/")
        host = f"{host}/{container}"
    return _objects(f"{scheme}://{host}"), key


@lru_cache(16)
def _objects(address: str) -> Objects:
    return Objects(address, write=False)
