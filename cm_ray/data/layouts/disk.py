"""Folders and files on a disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cm_ray.data.interface.names import printable
from cm_ray.data.layouts.file_kinds import Kind, kind_of
from cm_ray.data.layouts.file_tree import Entries, is_visible
from cm_ray.errors import UserError


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn the error of a file or folder that cannot be read into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Could not read {printable(str(path))} ({error.strerror or error}); every machine must be able "
            "to read it."
        ) from error


@dataclass(frozen=True, slots=True)
class Disk:
    """Files below a folder of a disk; see `Store`."""

    root: str
    """Absolute path."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return Path(self.root).name

    @property
    def is_archive(self) -> bool:
        """False: these are files of their own."""
        return False

    def full(self, path: str) -> str:
        """Return a path with that of the root before it."""
        return os.path.join(self.root, path) if path else self.root

    def place(self, path: str) -> str:
        """Return the full path as text for messages."""
        return printable(self.full(path))

    def entries(self, path: str) -> Entries:
        """List a folder; a file that is neither a regular file nor a folder, such as a pipe, is left out.

        Raises UserError when the folder cannot be listed, and on a link to an image that is not there.
        """
        found = Entries([], [])
        with reading(self.full(path)), os.scandir(self.full(path)) as entries:
            for entry in entries:
                if is_visible(entry.name):
                    self._sort(entry, found)
        return found

    def _sort(self, entry: os.DirEntry[str], found: Entries) -> None:
        if entry.is_file(follow_symlinks=False):  # first, since most entries are files; it needs no stat
            found.files.append(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            found.folders.append(entry.name)
        elif entry.is_symlink():
            try:
                os.stat(entry.path)
            except OSError as error:
                self._check_broken(entry, error)
                return
            if entry.is_dir():
                found.links.append(entry.name)
            elif entry.is_file():
                found.files.append(entry.name)

    def _check_broken(self, entry: os.DirEntry[str], error: OSError) -> None:
        """Raise UserError when a link that leads nowhere could be that of an image."""
        if kind_of(entry.name, lambda: b"") in (Kind.IMAGE, Kind.UNKNOWN):
            raise UserError(
                f"{printable(entry.path)} is a link that leads nowhere ({error.strerror}); remove or mend it."
            ) from error

    def read(self, path: str, most: int) -> bytes:
        """Return the first bytes of a file. Raises UserError when it cannot be read."""
        with reading(self.full(path)), open(self.full(path), "rb") as file:
            return file.read(most)

    def key(self, path: str) -> Hashable:
        """Return the device and the inode of a folder."""
        with reading(self.full(path)):
            stat = os.stat(self.full(path))
        return stat.st_dev, stat.st_ino

    def keys_above(self, path: str) -> set[Hashable]:
        """Return the devices and inodes of the folders that a folder lies in, by its path and in fact."""
        full = self.full(path)
        above = {*Path(full).parents, *Path(os.path.realpath(full)).parents}
        return {self.key(str(folder)) for folder in above}
