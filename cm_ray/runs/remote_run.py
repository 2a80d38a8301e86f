"""Runs at addresses: every process works in a copy on its own disk, and one at a time writes there."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cm_ray.errors import UserError, copy_of, tell_once
from cm_ray.remote.address import checked_address, joined
from cm_ray.remote.lease import Lease, Token, leased
from cm_ray.remote.mirror import Mirror, Order
from cm_ray.remote.objects import Objects
from cm_ray.remote.scratch import scratch_folder
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.places import run_place
from cm_ray.storage.files import is_address

ORDER = Order(
    log="metrics.jsonl",
    markers=("meta.json", "model.json"),
    before_log=("checkpoints/best.json",),  # a row with scores says that the best checkpoint is known
    after_log=("result.json",),
    excluded=("ray_train", "scoring-work", "stop"),
)
"""The order in which the files of a run are written, which is the one in which a training makes them."""
_FOLLOW_S = 5.0
"""Seconds between two looks at a log that another process writes."""
_LATER = ("checkpoints", "snapshots", "samples", "rounds")
"""Folders whose large files are copied only where they are needed."""


class RemoteRun:
    """This process's copy of a run at an address.

    token: the right to write that another process lends to this one; `locked` gets one of its own. Raises
    UserError when the address cannot be reached or cannot be written.
    """

    def __init__(self, address: str, token: Token | None = None) -> None:
        objects = Objects(address)
        self.address = objects.address
        self.root = scratch_folder()
        copy_of(str(self.root), self.address)
        self._mirror = Mirror(objects, self.root, ORDER, token)
        self._writes, self._lends, self._looked = token is not None, False, 0.0
        self.lease: Lease | None = None

    @classmethod
    def opened(cls, address: str, token: Token | None = None) -> RunDirectory:
        """Return the directory of a run at an address, with its records."""
        copied = cls(address, token)
        copied._mirror.pull(_is_record)
        return RunDirectory(copied.root, copied)

    @classmethod
    def empty(cls, address: str) -> RunDirectory:
        """Return the directory of a run at an address, of which nothing is here."""
        copied = cls(address)
        return RunDirectory(copied.root, copied)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lease of the address; at the end, write all that is new.

        After an exception, too, as far as possible. Raises UserError when another process has the lease.
        """
        with leased(self._mirror.objects, tell_once) as lease:
            self.lease, self._writes = lease, True
            self._mirror.may_write(lease.token)
            self._mirror.pull(_is_record)  # as the last holder has left them
            try:
                yield
            except BaseException:
                with contextlib.suppress(UserError):
                    self.finish()
                raise
            else:
                self.finish()

    def publish(self) -> None:
        """Write what is new to the address, in the background. Raises the error of writing before."""
        if self._writes:
            self._mirror.publish(log=not self._lends)

    def wait(self) -> None:
        """Wait until it is written. Raises the error of writing."""
        self._mirror.wait()

    def finish(self) -> None:
        """Write everything, and wait for it."""
        self.publish()
        self.wait()

    def fetch(self, path: Path) -> None:
        """Copy a file or a folder of the run from the address."""
        key = path.relative_to(self.root).as_posix()
        self._mirror.wait()
        self._mirror.pull(lambda each: _is_record(each) or each == key or each.startswith(f"{key}/"))

    def follow(self, *, last: bool) -> None:
        """Copy new rows of the log that another process writes, if it is time to look."""
        if self._lends and (last or time.monotonic() - self._looked > _FOLLOW_S):
            self._looked = time.monotonic()
            self._mirror.pull_log()

    @contextlib.contextmanager
    def lent(self) -> Iterator[Token]:
        """Yield the right to write of a new epoch, for another process, which writes the log.

        Rights that were lent before have ended. Afterwards what the other one has written is copied.
        """
        if self.lease is None:
            raise AssertionError("only the holder of the lease lends")
        self.finish()
        self._lends, token = True, self.lease.next_epoch()
        self._mirror.may_write(token)
        try:
            yield token
        finally:
            self._lends = False
            self._mirror.wait()
            self._mirror.may_write(self.lease.next_epoch())
            self._mirror.pull(_is_record)


def _is_record(key: str) -> bool:
    """Return True for what every process needs: all but checkpoints, snapshots, samples and rounds.

    The markers of checkpoints are records: they say which checkpoints there are.
    """
    folder, _, name = key.partition("/")
    return folder not in _LATER or not name or ORDER.stage(key) > 0


def open_place(place: str | Path) -> RunDirectory:
    """Return the directory of a run that is in a folder or at an address, with its records and its model."""
    return RemoteRun.opened(str(place)) if is_address(place) else RunDirectory(Path(place))


def open_run(given: str | Path, name: str) -> RunDirectory:
    """Return the directory of a run: the given one, or the default one of a run called `name`.

    Both may be addresses, by $CM_RAY_RUNS the default one.

    Raises UserError when the address is not one of an object store, or cannot be reached.
    """
    return open_place(place_of(given, name))


def place_of(given: str | Path, name: str) -> str:
    """Return the address or the absolute folder of a run, as `open_run` takes it."""
    runs = os.environ.get("CM_RAY_RUNS", "")
    if not given and is_address(runs):
        given = joined(runs, name)
    return checked_address(given, write=True) if is_address(given) else str(run_place(given, name))
