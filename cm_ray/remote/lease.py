"""A lease on a folder of a store: it gives the folder to one process, as a lock does on a disk.

The lease is an object with an epoch, which grows with every holder. Its holder renews it by conditional
writes; whoever finds it unchanged for `LEASE_S` takes it over with the next epoch. All writers have the epoch
they write for, and look for it before every write, so that workers of a holder that died cannot write any
more. No clocks are compared: only the own clock measures how long a lease has not changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cm_ray.errors import UserError, plain
from cm_ray.remote.objects import Conflict, Objects
from cm_ray.storage.files import parse_json
from cm_ray.storage.shapes import misfit

LEASE = ".lease.json"
LEASE_S = 30.0
"""Seconds without a renewal after which a lease has ended."""
_SHAPE = {"epoch": int, "holder": str, "id": str, "beat": int, "released": bool}


@dataclass(frozen=True, slots=True)
class Token:
    """The right of a writer to write below an address, as long as the lease has its epoch."""

    address: str
    epoch: int
    id: str

    def check(self, objects: Objects) -> None:
        """Raise UserError when the lease has passed to another holder; called at every write."""
        found, _ = _read(objects)
        if found is None or found["released"] or (found["epoch"], found["id"]) != (self.epoch, self.id):
            raise UserError(
                f"{self.address} belongs to another command now{_by(found)}; this one writes nothing more."
            )


class Lease:
    """The lease of this process, renewed by a thread until it is released."""

    def __init__(self, objects: Objects, state: dict[str, Any], etag: str) -> None:
        self._objects, self._state, self._etag = objects, state, etag
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_often, name="lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> Token:
        """The right to write in the present epoch."""
        with self._lock:
            return Token(self._objects.address, self._state["epoch"], self._state["id"])

    def next_epoch(self) -> Token:
        """Begin an epoch, so that writers of the one before cannot write any more; return its token."""
        self._write(epoch=self._state["epoch"] + 1)
        return self.token

    def release(self) -> None:
        """Give the lease back, so that the next command need not wait."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(UserError):  # it ends by itself
            self._write(released=True)

    def _renew_often(self) -> None:
        while not self._ended.wait(LEASE_S / 5):
            with contextlib.suppress(UserError):  # writers find out by themselves, and the next beat may do
                self._write()

    def _write(self, **changes: Any) -> None:
        """Write the lease if it still is this process's. Raises UserError when it is not."""
        with self._lock:
            state = self._state | {"beat": self._state["beat"] + 1} | changes
            try:
                self._etag = self._objects.replace(LEASE, _packed(state), self._etag)
            except Conflict as conflict:
                found, _ = _read(self._objects)
                raise UserError(f"{self._objects.address} belongs to another command now{_by(found)}.") from (
                    conflict
                )
            self._state = state


@contextlib.contextmanager
def leased(objects: Objects, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lease of an address. Raises UserError when another process holds and renews it.

    A lease that its holder has not released is waited for: it has ended when it does not change for
    `LEASE_S`. say: gets a sentence before such a wait.
    """
    lease = _acquired(objects, say)
    try:
        yield lease
    finally:
        lease.release()


def _acquired(objects: Objects, say: Callable[[str], None]) -> Lease:
    id_, holder = uuid.uuid4().hex, f"{platform.node()}, process {os.getpid()}"
    found, etag = _read(objects)
    if found and not found["released"]:
        etag = _ended(objects, found, etag, say)
    epoch = found["epoch"] + 1 if found else 1
    state = {"epoch": epoch, "holder": holder, "id": id_, "beat": 0, "released": False}
    try:
        data = _packed(state)
        etag = objects.replace(LEASE, data, etag) if found else objects.create(LEASE, data)
    except Conflict as conflict:
        raise _taken(objects, _read(objects)[0]) from conflict
    return Lease(objects, state, etag)


def _ended(objects: Objects, found: dict[str, Any], etag: str, say: Callable[[str], None]) -> str:
    """Wait until a lease has ended; return its ETag. Raises UserError when it changes meanwhile."""
    say(
        f"{objects.address} was not released by {found['holder']}; if it does not answer for "
        f"{LEASE_S:.0f} s, its work goes on here."
    )
    until = time.monotonic() + LEASE_S
    while time.monotonic() < until:
        time.sleep(LEASE_S / 20)
        now, changed = _read(objects)
        if now is None or now["id"] != found["id"] or (changed != etag and not now["released"]):
            raise _taken(objects, now)
        if changed != etag:
            return changed
    return etag


def _taken(objects: Objects, found: dict[str, Any] | None) -> UserError:
    return UserError(f"Another process is working in {objects.address}{_by(found)}; wait for it or stop it.")


def _by(found: dict[str, Any] | None) -> str:
    return f" ({plain(found['holder'])[:200]})" if found else ""


def _read(objects: Objects) -> tuple[dict[str, Any] | None, str]:
    """Return the lease and its ETag; None when there is none. Raises UserError when it is damaged."""
    try:
        data, etag = objects.read(LEASE)
    except FileNotFoundError:
        return None, ""
    place = f"{objects.address}/{LEASE}"
    found = parse_json(data, place)
    if problem := misfit(found, _SHAPE):
        raise UserError(
            f"{place} is not as cm_ray writes it ({problem}); remove it if no command works there."
        )
    return found, etag


def _packed(state: dict[str, Any]) -> bytes:
    return json.dumps(state).encode()
