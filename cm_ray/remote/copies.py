"""Copies between an address and the local disk, for commands that read a model or write files once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

from cm_ray.errors import UserError, copy_of
from cm_ray.remote.address import WRITABLE, checked_address
from cm_ray.remote.objects import Objects
from cm_ray.remote.scratch import scratch_folder
from cm_ray.storage.files import fetch_url, is_address


def keys_at(address: str) -> list[str]:
    """Return the names of all files below an address; none for one on the web, which cannot be listed."""
    if not checked_address(address, write=False).startswith(WRITABLE):
        return []
    return list(Objects(address, write=False).list())


def fetched_folder(address: str, wanted: Callable[[str], bool]) -> Path:
    """Return a local folder with the wanted files below an address; it lasts as long as this process."""
    objects, folder = Objects(address, write=False), scratch_folder()
    copy_of(str(folder), objects.address)
    for key, stored in objects.list().items():
        if wanted(key) and ".." not in key.split("/"):
            objects.fetch(key, stored, folder / key)
    return folder


def fetched_file(address: str) -> Path:
    """Return a local copy of the file at an address, which lasts as long as this process.

    Raises UserError when there is none.
    """
    address = checked_address(address, write=False)
    parent, _, name = address.rpartition("/")
    folder = scratch_folder()
    copy_of(str(folder), parent)
    try:
        if address.startswith(WRITABLE):
            objects = Objects(parent, write=False)
            objects.fetch(name, objects.stored(name), folder / name)
        else:
            fetch_url(address, folder / name, None)
    except (FileNotFoundError, URLError, OSError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({error})"
        raise UserError(f"There is no file at {address}{reason}; give the address of one.") from error
    return folder / name


def check_free(place: Path) -> None:
    """Raise UserError when something is at an address already; nothing is looked for elsewhere."""
    if not is_address(place):
        return
    objects = Objects(checked_address(place.parent, write=True))
    if any(key == place.name or key.startswith(f"{place.name}/") for key in objects.list()):
        raise UserError(f"{place} exists already; remove it, or choose another path.")


@contextlib.contextmanager
def delivered(out: Path, *, last: str = "") -> Iterator[Path]:
    """Yield a path to write to; for an address, a local one, whose files are copied there at the end.

    last: name of the file that is copied after all others. Raises UserError, before the block, when the store
    of the address does not answer.
    """
    if not is_address(out):
        yield out
        return
    objects, folder = Objects(checked_address(out.parent, write=True)), scratch_folder()
    copy_of(str(folder), objects.address)
    objects.list(out.name)  # a store that does not answer is an error before the work
    yield folder / out.name
    files = sorted(folder.rglob("*"), key=lambda file: (file.name == last, file))
    for key, file in ((file.relative_to(folder).as_posix(), file) for file in files if file.is_file()):
        if not any(part.startswith(".") for part in key.split("/")):
            objects.write(key, file)
