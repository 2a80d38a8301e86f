"""Objects of a store below an address: read, written whole, and written on a condition."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from cm_ray.errors import UserError, plain
from cm_ray.extras import needs
from cm_ray.remote.address import checked_address

T = TypeVar("T")
ONE_PUT = 8 << 20
"""Bytes up to which an object is written by one request, which can have a condition."""
_PIECE = 16 << 20
"""Bytes that are fetched at once of a larger object."""
_ATTEMPTS, _PAUSE_S = 3, 1.0
"""Attempts at a request that timed out; obstore itself repeats those that were answered by 5xx."""
TIMEOUT = timedelta(seconds=60)
"""Time limit of one request."""
RETRY_LIMIT = timedelta(seconds=60)
"""Time in which obstore repeats a request that was answered by 5xx, or whose connection broke."""


_STATUS = re.compile(r"status code: (\d{3})")
"""The status of an answer in a message of obstore."""


class Conflict(Exception):
    """The condition of a write did not hold: somebody else has written the object."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The facts that a store gives of an object."""

    size: int
    etag: str
    """A text that changes with the content."""


class Objects:
    """The objects below an address. Keys are relative to it.

    Requests that fail for a while (5xx, broken connections, timeouts) are repeated. Methods raise UserError,
    in one sentence with the address, when the store does not answer, or refuses the credentials.
    """

    def __init__(self, address: str, *, write: bool = True) -> None:
        self.address = checked_address(address, write=write)
        needs("obstore", extra="cloud", instead="give a folder")
        self._store = _opened(self.address)

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the content and the ETag of a small object. Raises FileNotFoundError when there is none."""
        found = self._asked(lambda: _get(self._store, key))
        return found[0], found[1]

    def read_range(self, key: str, start: int, stop: int, etag: str = "") -> bytes:
        """Return bytes [start, stop) of an object. Raises Conflict when its ETag is another one."""
        options: dict[str, Any] = {"range": (start, stop)} | ({"if_match": etag} if etag else {})
        return self._asked(lambda: _get(self._store, key, options))[0]

    def stored(self, key: str) -> Stored:
        """Return size and ETag of an object. Raises FileNotFoundError when there is none."""
        import obstore

        meta = self._asked(lambda: obstore.head(self._store, key))
        return Stored(meta["size"], meta["e_tag"] or "")

    def list(self, folder: str = "") -> dict[str, Stored]:
        """Return all objects below a folder, by their keys, in ascending order."""
        import obstore

        def listed() -> dict[str, Stored]:
            pages = obstore.list(self._store, prefix=folder or None)
            return {
                meta["path"]: Stored(meta["size"], meta["e_tag"] or "") for page in pages for meta in page
            }

        found = self._asked(listed)
        return {key: found[key] for key in sorted(found)}

    def create(self, key: str, data: bytes) -> str:
        """Write a new object; return its ETag. Raises Conflict when another one is there."""
        return self._conditional(key, data, "create")

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write an object over the one with this ETag; return the new one. Raises Conflict."""
        return self._conditional(key, data, {"e_tag": etag})

    def write(self, key: str, file: Path) -> str:
        """Write a file of any size over whatever is there; return the ETag.

        The object appears whole or not at all.
        """
        import obstore

        def put() -> str:
            sent = obstore.put(self._store, key, file, chunk_size=ONE_PUT, max_concurrency=4)
            return sent["e_tag"] or ""

        return self._asked(put)

    def remove(self, key: str) -> None:
        """Remove an object, if it exists."""
        import obstore

        with contextlib.suppress(FileNotFoundError):
            self._asked(lambda: obstore.delete(self._store, key))

    def fetch(self, key: str, stored: Stored, file: Path) -> None:
        """Write an object to a local file, in pieces. Raises Conflict when it changes meanwhile."""
        file.parent.mkdir(parents=True, exist_ok=True)
        starts = range(0, stored.size, _PIECE)
        with file.open("wb") as opened, ThreadPoolExecutor(4) as pool:

            def piece(start: int) -> None:
                stop = min(start + _PIECE, stored.size)
                os.pwrite(opened.fileno(), self.read_range(key, start, stop, stored.etag), start)

            for _ in pool.map(piece, starts):
                pass

    def _conditional(self, key: str, data: bytes, mode: Any) -> str:
        import obstore

        def put() -> str:
            return obstore.put(self._store, key, data, mode=mode, use_multipart=False)["e_tag"] or ""

        try:
            return self._asked(put)
        except (Conflict, FileNotFoundError) as conflict:
            with contextlib.suppress(FileNotFoundError):
                there, etag = self.read(key)
                if there == data:  # written by an attempt whose answer was lost
                    return etag
            raise Conflict(key) from conflict

    def _asked(self, request: Callable[[], T]) -> T:
        """Return the answer to a request, which is repeated after failures that pass."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                with _explained(self.address):
                    return request()
            except _Passing as error:
                if not left:
                    raise UserError(
                        f"The storage at {self.address} does not answer ({error}); repeat the command when "
                        "it does."
                    ) from error
                time.sleep(_PAUSE_S)
        raise AssertionError


class _Passing(Exception):
    """A failure that may pass."""


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn exceptions of obstore into those of this module."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise Conflict(str(error)) from error
    except exceptions.BaseError as error:
        status = _STATUS.search(str(error))
        if status is None or status[1].startswith("5"):
            raise _Passing(_short(error)) from error
        if status[1] in ("401", "403"):
            raise UserError(
                f"The storage at {address} refuses these credentials ({_short(error)}); set others, by the "
                "environment variables of its provider, on every node."
            ) from error
        raise UserError(f"The storage at {address} answers: {_short(error)}; check the address.") from error


def _short(error: Exception) -> str:
    """Return the first line of an error of obstore, without what follows for programmers."""
    return plain(str(error).split("\n", 1)[0])[:300].rstrip(". ")


def _opened(address: str) -> Any:
    from obstore.store import from_url

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    plain_http = address.startswith("http://") or endpoint.startswith("http://")
    scheme = address.partition(":")[0]
    config: dict[str, Any] = {"endpoint": endpoint} if scheme == "s3" and endpoint else {}
    return from_url(
        address,
        client_options={
            "timeout": TIMEOUT,
            "connect_timeout": timedelta(seconds=10),
            "allow_http": plain_http,
        },
        retry_config={
            "max_retries": 8,
            "retry_timeout": RETRY_LIMIT,
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
        **config,
    )


def _get(store: Any, key: str, options: Any = None) -> tuple[bytes, str]:
    import obstore

    found = obstore.get(store, key, options=options)
    return bytes(found.bytes()), found.meta["e_tag"] or ""
