"""A folder on a local disk and its copy at an address, from which the work can always go on elsewhere."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cm_ray.errors import UserError
from cm_ray.remote.address import joined
from cm_ray.remote.lease import LEASE, Token
from cm_ray.remote.objects import Conflict, Objects, Stored
from cm_ray.remote.pieces import Pieces
from cm_ray.remote.writer import Writer

Wanted = Callable[[str], bool]
"""Tells by its key whether an object is to be copied to the disk."""
_State = tuple[int, int]
"""Time of change and size of a local file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order in which files are written, so that a kill in between leaves nothing that looks complete."""

    log: str
    """The file that grows; its pieces are in a folder of its name without the ending."""
    markers: tuple[str, ...]
    """Names of files that say that their folder is complete: written after the others, and removed first."""
    before_log: tuple[str, ...]
    """Keys that are written after the markers and before the log."""
    after_log: tuple[str, ...]
    """Keys that are written last."""
    excluded: tuple[str, ...] = ()
    """Folders at the top that are not copied, nor are files and folders whose names begin with a dot."""

    def stage(self, key: str) -> int:
        """Return the turn of a file: 0 contents, 1 markers, 2 before the log, 4 after it."""
        if key in self.before_log:
            return 2
        if key in self.after_log:
            return 4
        return 1 if key.rpartition("/")[2] in self.markers else 0

    def is_excluded(self, key: str) -> bool:
        """Return True for a file that is not copied."""
        parts = key.split("/")
        return parts[0] in self.excluded or any(part.startswith(".") for part in parts)


@dataclass(frozen=True, slots=True)
class _Capture:
    """The changes in the local folder up to a moment."""

    contents: list[str]
    """Files that are written first."""
    small: dict[str, bytes]
    """The other files and what they hold."""
    gone: list[str]
    """Objects whose files are gone."""
    log: bytes | None


class Mirror:
    """A local folder and its copy at an address. One thread calls its methods, another one writes.

    token: the right to write; None for a copy that is only read.
    """

    def __init__(self, objects: Objects, root: Path, order: Order, token: Token | None = None) -> None:
        self.objects, self.root, self.order = objects, root, order
        self._writer = Writer(objects, token)
        self._here: dict[str, _State] = {}
        self._etags: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        self._log = Pieces(order.log.rpartition(".")[0], root / order.log)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mirror")
        self._pending: list[concurrent.futures.Future[None]] = []
        self._failed = False

    def may_write(self, token: Token) -> None:
        """Set the right to write."""
        self._writer.token = token

    def pull(self, wanted: Wanted) -> None:
        """Copy the log, and the wanted objects that are not here as they are there.

        Files that were copied and are there no longer are removed. Call `wait` before.
        """
        try:
            listed = self._listed()
            for key, stored in listed.items():
                if wanted(key) and self._etags.get(key) != stored.etag:
                    self._fetch(key, stored)
            self.pull_log()
        except (Conflict, FileNotFoundError):  # replaced or removed meanwhile
            return self.pull(wanted)
        for key in self._here.keys() - listed.keys():
            (self.root / key).unlink(missing_ok=True)
            del self._here[key]
        self._elsewhere = listed.keys() - self._here.keys()

    def pull_log(self) -> None:
        """Copy the new rows of the log."""
        self._log.pull(self.objects)

    def publish(self, *, log: bool = True) -> None:
        """Write what has changed in the folder up to now, in the background, after earlier calls.

        log: write the log, too. Raises the error of an earlier call.
        """
        self._raise_errors()
        capture = self._captured(log)
        self._pending.append(self._thread.submit(self._push, capture))

    def wait(self) -> None:
        """Wait until everything is written. Raises the error of writing."""
        concurrent.futures.wait(self._pending)
        self._raise_errors()

    def close(self) -> None:
        """End the thread, after the call that it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _raise_errors(self) -> None:
        done = [future for future in self._pending if future.done()]
        self._pending = [future for future in self._pending if future not in done]
        for future in done:
            future.result()

    def _listed(self) -> dict[str, Stored]:
        """Return all objects but the lease and the pieces of the log."""
        listed = self.objects.list()
        self._writer.sees(listed)
        apart = f"{self._log.folder}/"
        return {
            key: stored
            for key, stored in listed.items()
            if key != LEASE and not key.startswith(apart) and not self.order.is_excluded(key)
        }

    def _fetch(self, key: str, stored: Stored) -> None:
        file = self.root / key
        if not file.resolve().is_relative_to(self.root.resolve()):
            raise UserError(f"{joined(self.objects.address, key)} has a name that leads out of its folder.")
        self.objects.fetch(key, stored, file)
        self._here[key], self._etags[key] = _state(file), stored.etag
        self._writer.has(key, file)

    def _captured(self, log: bool) -> _Capture:
        files = dict(self._files())
        changed = [key for key, state in files.items() if self._here.get(key) != state]
        small = {key: (self.root / key).read_bytes() for key in changed if self.order.stage(key)}
        gone = [key for key in self._here if key not in files]
        folders = tuple(f"{key.rpartition('/')[0]}/" for key in gone if self.order.stage(key) == 1)
        gone += [key for key in self._elsewhere if folders and key.startswith(folders)]
        self._here, self._elsewhere = files, self._elsewhere - set(gone)
        contents = [key for key in changed if key not in small]
        return _Capture(contents, small, gone, self._log.captured() if log else None)

    def _files(self) -> Iterable[tuple[str, _State]]:
        for file in sorted(self.root.rglob("*")):
            key = file.relative_to(self.root).as_posix()
            if key != self.order.log and not self.order.is_excluded(key) and file.is_file():
                yield key, _state(file)

    def _push(self, capture: _Capture) -> None:
        if self._failed:  # what follows would look complete without it
            return
        self._failed = True
        incomplete = self._push_contents(capture)
        for stage in (1, 2, 3, 4):
            if stage == 3 and capture.log is not None:
                self._log.push(self._writer, capture.log)
            for key, data in capture.small.items():
                if self.order.stage(key) == stage and key.rpartition("/")[0] not in incomplete:
                    self._etags[key] = self._writer.put(key, data)
        for key in sorted(capture.gone, key=lambda key: -self.order.stage(key)):
            self._writer.remove(key)
        self._failed = False

    def _push_contents(self, capture: _Capture) -> set[str]:
        """Write the files that come first; return the folders of which a file has gone meanwhile."""
        folders = {key.rpartition("/")[0] for key in capture.contents}
        for key in capture.small:
            if self.order.stage(key) == 1 and key.rpartition("/")[0] in folders:
                self._writer.remove(key)  # the folder is another one, and not complete for a while
        incomplete = set()
        for key in capture.contents:
            try:
                self._etags[key] = self._writer.put(key, self.root / key)
            except FileNotFoundError:
                incomplete.add(key.rpartition("/")[0])
        return incomplete - {""}


def _state(file: Path) -> _State:
    status = file.stat()
    return status.st_mtime_ns, status.st_size
