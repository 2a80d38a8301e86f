"""File operations that are safe against interruption: atomic writes, locks, hashes and downloads."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError
from cm_ray.storage.renaming import put_at
from cm_ray.storage.shapes import Shape, is_deep, misfit

MOST_JSON, MOST_RECORD = 1 << 24, 1 << 28
"""The largest JSON files that are read, in bytes: of settings and results; of a million edits, a long log."""
_FEW_VALUES, _BYTES_EACH = 100_000, 8
"""Values that any JSON file may have, and the fewest bytes for each of more: short ones take much memory."""
_CHUNK = 1 << 20


_ADDRESS = re.compile(r"(?!models:)[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""The beginning of s3://bucket/folder; `Path` makes one slash of the two. models:/NAME is in a registry."""


def is_address(place: str | Path) -> bool:
    """Return True for the address of a storage, and False for the path of a file or a registered model."""
    return _ADDRESS.match(str(place)) is not None


def cache_root() -> Path:
    """Return the folder for downloads and derived data: $CM_RAY_CACHE, else ~/.cache/cm_ray.

    Raises UserError when $CM_RAY_CACHE is the address of an object store.
    """
    return local_path(os.environ.get("CM_RAY_CACHE") or Path.home() / ".cache" / "cm_ray")


def local_path(place: str | Path) -> Path:
    """Return a place as an absolute path. Raises UserError when it is the address of an object store."""
    if is_address(place):
        raise UserError(f"{place} is an address, not a folder: give a folder that all nodes mount.")
    return Path(place).expanduser().absolute()


def absolute(place: str | Path) -> Path:
    """Return a path as an absolute one, and an address as it is, in a path; see `cm_ray.remote.files`."""
    return Path(place) if is_address(place) else Path(place).expanduser().absolute()


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is synced and renamed to `path`.

    At any time, `path` holds the old content or the new, never a part of it. On failure the path beside it
    is removed. Raises UserError when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield aside
        sync(aside)
        put_at(aside, path)
        sync(path.parent)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise UserError(f"The disk is full: {path} was not written; free some space there.") from error
        raise
    finally:
        remove(aside)


@contextlib.contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it is synced and renamed to `path`.

    An older folder at `path` changes places with it, and is removed: `path` holds one or the other at any
    time. On file systems that cannot exchange two names (NFS among them), there is a moment without either.
    """
    with written_aside(path) as aside:
        remove(aside)
        aside.mkdir()
        yield aside
        for file in aside.rglob("*"):
            sync(file)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on the file `path`, waiting while another process holds it.

    The lock of a process that is killed is released.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder that exists, by their names."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        data = text.encode()
    except UnicodeEncodeError:  # the path of a file whose name is not UTF-8
        data = json.dumps(value, indent=2, allow_nan=False).encode()
    with written_aside(path) as aside:
        aside.write_bytes(data + b"\n")


def read_json(path: Path, shape: Shape = None, most_bytes: int = MOST_JSON) -> Any:
    """Read a JSON file, within limits on its size, the number of its values and their nesting.

    shape: see `cm_ray.storage.shapes`; None takes any value. Raises UserError when the file is not JSON or
    not of the shape, or larger than such files are; FileNotFoundError when there is none.
    """
    value = parse_json(_bounded(path, most_bytes), path)
    if shape is not None and (problem := misfit(value, shape)):
        raise UserError(f"{path} is not as cm_ray writes it ({problem}); restore it or remove it.")
    return value


def read_json_lines(path: Path, shape: Shape) -> list[Any]:
    """Read a file of JSON values of a shape, one in each line; lines that were cut short are skipped.

    Raises UserError on other values, and as `read_json` does.
    """
    values = []
    for number, line in enumerate(_bounded(path, MOST_RECORD).splitlines(), 1):
        try:
            value = parse_json(line, path, finite=False)
        except UserError:
            continue
        if problem := misfit(value, shape):
            raise UserError(f"Line {number} of {path} is not as cm_ray writes it ({problem}); restore it.")
        values.append(value)
    return values


def parse_json(data: bytes | str, place: Path | str, *, finite: bool = True) -> Any:
    """Return a value of JSON, within the limits of `read_json`. Raises UserError, naming the place.

    finite: refuse NaN and Infinity, which are no JSON, but which logs can have.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        if sum(map(text.count, "[{,")) > max(_FEW_VALUES, len(text) // _BYTES_EACH):
            raise ValueError("it has too many values for its size")
        value = json.loads(text, parse_constant=_refused_constant if finite else None)
        if is_deep(value):
            raise RecursionError
        return value
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{place} is not valid JSON ({reason}); restore it or remove it.") from error


def _refused_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _bounded(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a file that is no larger than this, and no device or pipe."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is not a file; restore it or remove it.")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UserError(
            f"{path} has more than {most_bytes >> 20} MiB, and no file of its kind is so large; "
            "restore it or remove it."
        )
    return data


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file that something read names, relative to a folder.

    Raises UserError when it is absolute or leads out of the folder, by ``..`` or by a link.
    """
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} names a file outside of it, {name[:200]!r}; restore the folder.")
    return path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str, path: Path, *, sha256: str, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Download `url` to `path`, resuming an interrupted download, and check its SHA-256.

    Returns `path`; a file that is there already is only checked. `progress` is called with bytes done and
    bytes in all (0 if the server does not say). Raises UserError when the address cannot be reached or
    the content is another one; it names the address, the digest and the path for a file downloaded by hand.
    """
    with locked(path.with_name(path.name + ".lock")):  # of several workers, only one downloads
        return _download(url, path, sha256, progress)


def _download(url: str, path: Path, sha256: str, progress: Callable[[int, int], None] | None) -> Path:
    by_hand = f"fetch {url} (SHA-256 {sha256}) by hand and put it at {path}"
    if path.is_file():
        if sha256_of(path) != sha256:
            raise UserError(f"{path} has another SHA-256 than {sha256}; remove it, or {by_hand}.")
        return path
    part = path.with_name(path.name + ".download")
    try:
        fetch_url(url, part, progress)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"Could not download {url} ({error}); try again, or {by_hand}.") from error
    if sha256_of(part) != sha256:
        remove(part)
        raise UserError(f"{url} sent a file with another SHA-256; {by_hand}.")
    sync(part)
    part.replace(path)
    return path


def fetch_url(url: str, part: Path, progress: Callable[[int, int], None] | None) -> None:
    """Write what an address of the web answers to a file, after the part of it that is there already.

    progress: see `download`. Raises OSError, URLError among them, when it does not answer to the end.
    """
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to send: the download is complete
            return
        raise
    with response:
        if response.status != 206:  # the server does not resume
            done = 0
        left = int(response.headers.get("Content-Length") or 0)
        total = done + left if left else 0
        with part.open("ab" if done else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    if total and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
