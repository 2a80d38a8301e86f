"""Digest of the files of a source: content decides, and the cache remembers what has been read.

The index of a folder, in the cache, keeps the digest of each file's bytes under the state of the file: its
name, size, times and inode. Programs cannot set the change time, so that another content has another state. A
state that the index lacks, such as that of a touched or a moved file, means that the file is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from cm_ray.data.interface.source import Progress
from cm_ray.data.layouts.disk import reading
from cm_ray.errors import UserError
from cm_ray.storage.files import cache_root, remove, written_aside

_T = TypeVar("_T")
_R = TypeVar("_R")
_LENGTH = 16  # bytes of the digests of a state and of a content
_THREADS = 16  # a network drive answers several requests at once
_FILES_AT_ONCE = 64
_OLD_STATES = 10_000  # states that are kept although their files were not asked for
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000
"""Longest steps between the times that file systems give; some give whole seconds."""


class _State(NamedTuple):
    """The state of a file, as its file system tells it."""

    key: bytes
    """Digest of the file's name, size, times and inode."""
    size: int
    changed_ns: int
    """Time of the last change of its content or its properties."""


def digest_of_files(root: Path, names: Sequence[str], progress: Progress | None = None) -> str:
    """Return a hex digest of the names and the bytes of files, whatever their order.

    root: a folder. names: the paths, relative to it, of all files that decide images or labels. progress: is
    called with bytes done and bytes in all while files are read. A file is read once, and again when its
    state has changed. Raises UserError when a file cannot be read.
    """
    root = root.resolve()
    index = _Index(root)
    states = list(_in_threads(lambda name: _state(root, name), names))
    unknown = [place for place, state in enumerate(states) if state.key not in index.known]
    if unknown:
        _wait_for_a_tick([states[place].changed_ns for place in unknown])
        contents = _read(root, [(names[place], states[place].size) for place in unknown], progress)
        index.known |= {states[place].key: content for place, content in zip(unknown, contents, strict=True)}
        index.save({state.key for state in states})
    digest = hashlib.sha256()
    for name, state in sorted(zip(names, states, strict=True)):
        digest.update(os.fsencode(name) + b"\0" + index.known[state.key])
    return digest.hexdigest()


def _in_threads(work: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
    """Yield the results of work on each item, in order."""
    pieces = [items[start : start + _FILES_AT_ONCE] for start in range(0, len(items), _FILES_AT_ONCE)]
    with ThreadPoolExecutor(_THREADS) as threads:
        for results in threads.map(lambda piece: [work(item) for item in piece], pieces):
            yield from results


def _state(root: Path, name: str) -> _State:
    path = os.path.join(root, name)
    with reading(path):
        stat = os.stat(path)
    text = f"\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}".encode()
    key = hashlib.blake2b(os.fsencode(name) + text, digest_size=_LENGTH).digest()
    return _State(key, stat.st_size, stat.st_ctime_ns)


def _wait_for_a_tick(changes_ns: Sequence[int]) -> None:
    """Wait until the next change of a file that has just been changed would give it another time."""
    now, wait = time.time_ns(), 0
    for changed in changes_ns:
        tick = _TICK_NS if changed % 1_000_000_000 else _COARSE_TICK_NS
        wait = max(wait, min(tick, changed + tick - now))
    time.sleep(wait / 1e9)


def _read(root: Path, files: Sequence[tuple[str, int]], progress: Progress | None) -> list[bytes]:
    """Return the digests of the bytes of files (name, size), reading all of them."""
    done, total, contents = 0, sum(size for _, size in files), []
    found = _in_threads(lambda file: _content(root, file[0]), files)
    for (_, size), content in zip(files, found, strict=True):
        contents.append(content)
        done += size
        if progress:
            progress(done, total)
    return contents


def _content(root: Path, name: str) -> bytes:
    path = os.path.join(root, name)
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_LENGTH)).digest()


class _Index:
    """Digests of the contents of a folder's files by the keys of their states, in a file of the cache."""

    def __init__(self, root: Path) -> None:
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        self._file = cache_root() / "identities" / f"{name}.npy"
        self.known = self._load()

    def _load(self) -> dict[bytes, bytes]:
        if not self._file.is_file():
            return {}
        try:
            rows = np.load(self._file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            rows = np.empty(0)
        if rows.dtype != np.uint8 or rows.shape[1:] != (2 * _LENGTH,):  # damaged: all files are read again
            remove(self._file)
            return {}
        content, step = rows.tobytes(), 2 * _LENGTH
        return {
            content[at : at + _LENGTH]: content[at + _LENGTH : at + step]
            for at in range(0, len(content), step)
        }

    def save(self, asked: set[bytes]) -> None:
        """Write the states asked for, and others too if they are not many more."""
        kept = self.known
        if len(kept) - len(asked) > max(_OLD_STATES, len(asked)):
            kept = {key: kept[key] for key in asked}
        rows = np.frombuffer(b"".join(key + content for key, content in kept.items()), np.uint8)
        with (
            contextlib.suppress(OSError, UserError),  # the next command then reads the same files
            written_aside(self._file) as aside,
            aside.open("wb") as file,
        ):
            np.save(file, rows.reshape(-1, 2 * _LENGTH), allow_pickle=False)
