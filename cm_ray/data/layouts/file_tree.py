"""Folders of a data set, on a disk or in an archive: what they hold, and what lies below them.

A folder is listed once, when it is asked for, so that opening one split of a data set does not list
another.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Protocol

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.splits import split_word
from cm_ray.data.layouts.file_kinds import Kind, ending, kind_of
from cm_ray.data.pictures.image_formats import SIGNATURE_BYTES

_OF_SYSTEMS = frozenset(
    {
        "__MACOSX",
        "__pycache__",
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    }
)


def is_visible(name: str) -> bool:
    """Return True unless a file or folder is hidden (its name begins with a dot) or belongs to a system.

    A Mac puts ``__MACOSX`` and ``._0.png`` into archives, a Synology drive small pictures into ``@eaDir``.
    """
    return not name.startswith(".") and name not in _OF_SYSTEMS


@dataclass(frozen=True, slots=True)
class Entries:
    """Names in a folder; hidden ones and those of systems are left out."""

    files: list[str]
    folders: list[str]
    links: list[str] = field(default_factory=list)
    """Links to folders."""


class Store(Protocol):
    """Files on a disk or in an archive, by paths relative to its root, "" for the root itself."""

    @property
    def name(self) -> str:
        """Name of the root."""

    @property
    def is_archive(self) -> bool:
        """True for the members of an archive."""

    def entries(self, path: str) -> Entries:
        """List a folder. Raises UserError when it cannot be listed."""

    def read(self, path: str, most: int) -> bytes:
        """Return the first `most` bytes of a file. Raises UserError when it cannot be read."""

    def place(self, path: str) -> str:
        """Return a path as text for messages."""

    def key(self, path: str) -> Hashable:
        """Return what tells a real folder from others, whatever links lead to it."""

    def keys_above(self, path: str) -> set[Hashable]:
        """Return the keys of all real folders that a folder lies in."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files directly in a folder, by kind; names are sorted."""

    images: list[str]
    parquet: list[str]
    npz: list[str]
    tars: list[str]
    """Tar archives, where they lie beside none of the others."""
    others: Counter[tuple[str, Kind]]
    """Number of files of each (ending, kind) that is neither an image nor a table."""

    @property
    def holds_data(self) -> bool:
        """True if there is an image or a table."""
        return bool(self.images or self.parquet or self.npz or self.tars)


class Folder:
    """A folder of a data set. Its contents are listed at their first use and kept."""

    def __init__(self, store: Store, path: str = "") -> None:
        self.store, self.path = store, path
        self._below: dict[str, Folder] = {}

    @property
    def name(self) -> str:
        """Name of the folder."""
        return PurePosixPath(self.path).name or self.store.name

    @property
    def place(self) -> str:
        """The folder in messages."""
        return self.store.place(self.path)

    def inside(self, name: str) -> str:
        """Return the path of a file or folder in this folder."""
        return f"{self.path}/{name}" if self.path else name

    @cached_property
    def entries(self) -> Entries:
        """The names in the folder."""
        return self.store.entries(self.path)

    @cached_property
    def files(self) -> Files:
        """The files in the folder, by kind."""
        found: dict[Kind, list[str]] = {Kind.IMAGE: [], Kind.PARQUET: [], Kind.NPZ: [], Kind.TAR: []}
        others: Counter[tuple[str, Kind]] = Counter()
        for name in self.entries.files:
            kind = kind_of(name, partial(self.store.read, self.inside(name), SIGNATURE_BYTES))
            if kind in found:
                found[kind].append(name)
            else:
                others[ending(name), kind] += 1
        images, parquet, npz, tars = (sorted(names) for names in found.values())
        if tars and (images or parquet or npz):  # such as an archive of the images that lie there
            others[".tar", Kind.ARCHIVE] = len(tars)
            tars = []
        return Files(images, parquet, npz, tars, others)

    def folder(self, name: str) -> Folder:
        """Return a sub-folder, the same object every time."""
        if name not in self._below:
            self._below[name] = Folder(self.store, self.inside(name))
        return self._below[name]

    @cached_property
    def folders(self) -> list[Folder]:
        """The sub-folders that hold images or tables somewhere, sorted by name, each real folder once.

        Of several names of one folder, one that names a split comes first, then the folder itself, then
        links; it may have the names of several splits. A link to a folder above is none of them.
        """
        names = self.entries.folders
        if self.entries.links:
            names = self._once()
        return sorted(
            (each for each in map(self.folder, names) if each.first_data), key=lambda each: each.name
        )

    def _once(self) -> list[str]:
        """Return the names of sub-folders, without other names of the same ones; see `folders`."""
        links = {*self.entries.links}
        above = {self.store.key(self.path), *self.store.keys_above(self.path)}
        words: dict[Hashable, set[str]] = {}
        found: list[str] = []
        names = [*self.entries.folders, *links]
        for name in sorted(names, key=lambda name: (not split_word(name), name in links, name)):
            word, key = split_word(name), self.store.key(self.inside(name))
            another = key not in words or bool(word and word not in words[key])
            if another and not (name in links and key in above):
                found.append(name)
            words.setdefault(key, set()).add(word)
        return found

    @cached_property
    def first_data(self) -> Files | None:
        """The files of the first folder with images or tables, this one or below it; None without any."""
        return next((each.files for each in self.walk() if each.files.holds_data), None)

    def walk(self) -> Iterator[Folder]:
        """Yield the folder and all folders below it, each real folder once.

        Links come last, in the order of their paths; those to folders that were seen or lie above are left
        out.
        """
        waiting, found, links = [self], list[Folder](), list[Folder]()
        while waiting:
            folder = waiting.pop()
            found.append(folder)
            yield folder
            waiting += folder.real_folders()
            links += folder.linked_folders()
        if links:  # only now have folders to be told from each other
            keys = {self.store.key(folder.path) for folder in found}
            yield from _walk_links(links, keys | self.store.keys_above(self.path))

    def real_folders(self) -> list[Folder]:
        """Return the sub-folders that are no links, the last name first."""
        return [self.folder(name) for name in sorted(self.entries.folders, reverse=True)]

    def linked_folders(self) -> list[Folder]:
        """Return the sub-folders that are links."""
        return [self.folder(name) for name in self.entries.links]

    def paths(self, names: list[str]) -> list[str]:
        """Return the paths of files in this folder, relative to the root."""
        return [self.inside(name) for name in names]

    def read(self, name: str, most: int) -> bytes:
        """Return the first `most` bytes of a file in this folder. Raises UserError when it cannot be read."""
        return self.store.read(self.inside(name), most)

    def __str__(self) -> str:
        """Return the folder in messages."""
        return printable(self.place)


def _walk_links(links: list[Folder], seen: set[Hashable]) -> Iterator[Folder]:
    """Yield the folders that links lead to, and all below them, unless their keys were seen."""
    waiting: list[Folder] = []
    ordered = [(folder.path, folder) for folder in links]
    heapq.heapify(ordered)
    while waiting or ordered:
        folder = waiting.pop() if waiting else heapq.heappop(ordered)[1]
        key = folder.store.key(folder.path)
        if key not in seen:
            seen.add(key)
            yield folder
            waiting += folder.real_folders()
            for link in folder.linked_folders():
                heapq.heappush(ordered, (link.path, link))
