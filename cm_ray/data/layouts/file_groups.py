"""The files below a folder, grouped by the sub-folders of the folder, and what of them is left out."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.source import LeftOut
from cm_ray.data.interface.splits import same_split
from cm_ray.data.layouts.file_kinds import Kind, ending
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.split_folders import PLAIN_NAMES, folder_word

_ENDINGS_SHOWN = 8
_CHUNK_DIGITS = 5
_NUMBERED = re.compile(r"(.*?)([0-9]+)")
_REASONS = {
    Kind.OTHER: "not images",
    Kind.UNKNOWN: "not images, by their content",
    Kind.UNREADABLE: "images of a format that is not read",
    Kind.ARCHIVE: "archives beside images are not unpacked",
    Kind.PARQUET: "tables beside images are not read",
    Kind.NPZ: "tables beside images are not read",
}


@dataclass(slots=True)
class Group:
    """The files below one sub-folder."""

    images: list[str] = field(default_factory=list)
    """Paths relative to the root of the data set, sorted."""
    others: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    """Number of files of each (ending, kind) that are no images."""
    nested: bool = False
    """True if images lie in folders deeper inside, whose names say something."""

    @property
    def may_hold_images(self) -> bool:
        """True if there is a file that could be an image, although it cannot be read."""
        return any(kind in (Kind.UNREADABLE, Kind.UNKNOWN) for _, kind in self.others)


@dataclass(slots=True)
class Listing:
    """All files below a folder."""

    direct: Group
    """The files directly in the folder."""
    groups: dict[str, Group]
    """The files below each sub-folder, by its name."""
    links: int
    """Links to folders that were not followed."""

    def others(self) -> Counter[tuple[str, Kind]]:
        """Count the files of each (ending, kind) that are no images."""
        total: Counter[tuple[str, Kind]] = Counter()
        for group in (self.direct, *self.groups.values()):
            total.update(group.others)
        return total


def list_files(folder: Folder, split: str = "") -> Listing:
    """List all files below a folder; with a split, only those in the split's folder of each sub-folder."""
    groups: dict[str, Group] = {}
    links = set[str]()
    followed = 0
    for each in folder.walk():
        links.update(each.paths(each.entries.links))
        followed += each.path in links
        parts = each.path[len(folder.path) :].strip("/").split("/")
        if split and len(parts) > 1 and not same_split(folder_word(parts[1]), split):
            continue
        group = groups.setdefault(parts[0], Group())
        group.images += each.paths(each.files.images)
        group.others.update(each.files.others)
        group.others.update((ending(name), Kind.PARQUET) for name in each.files.parquet)
        group.others.update((ending(name), Kind.NPZ) for name in each.files.npz)
        group.others.update((ending(name), Kind.ARCHIVE) for name in each.files.tars)
        if each.files.images and parts[1 + bool(split) :]:
            group.nested |= parts[1 + bool(split)].lower() not in PLAIN_NAMES
    for group in groups.values():
        group.images.sort()
    return Listing(groups.pop("", Group()), groups, len(links) - followed)


def are_chunks(groups: dict[str, Group]) -> bool:
    """Return True if sub-folders are numbered pieces of one long list of files, not classes.

    EDM's tools write 00000/img00000000.png, …, 00001/img00001000.png: all names of folders have the same
    number of digits, at least five, and the numbers of the files go on from one folder to the next. In
    folders of classes the numbers begin anew.
    """
    names = sorted(groups)
    if len(names[0]) < _CHUNK_DIGITS or len({len(name) for name in names}) > 1:
        return False
    if not all(name.isascii() and name.isdigit() for name in names):
        return False
    prefixes, last = set[str](), -1
    for name in names:
        found = [_numbered(path) for path in groups[name].images]
        numbers = [number for _, number in found]
        prefixes.update(prefix for prefix, _ in found)
        if len(prefixes) > 1 or min(numbers) <= last:
            return False
        last = max(numbers)
    return True


def _numbered(path: str) -> tuple[str, int]:
    """Return what a file is called before its number, and the number; -1 if it has none."""
    stem = os.path.splitext(os.path.basename(path))[0]
    match = _NUMBERED.fullmatch(stem)
    return (match[1], int(match[2][:18])) if match else (stem, -1)


def left_files(listing: Listing, *used: tuple[str, Kind]) -> tuple[LeftOut, ...]:
    """Return the files that are left out by their endings, the most frequent first, and the links.

    used: endings and kinds of single files that are read after all, such as dataset.json.
    """
    others = listing.others() - Counter(used)
    left = [
        LeftOut(count, f"files {_with(end)}", _REASONS[kind])
        for (end, kind), count in sorted(others.items(), key=lambda item: (-item[1], item[0][0]))
    ]
    if len(left) > _ENDINGS_SHOWN:
        rest = left[_ENDINGS_SHOWN - 1 :]
        count = sum(each.count for each in rest)
        left = [
            *left[: _ENDINGS_SHOWN - 1],
            LeftOut(count, f"files of {len(rest)} other endings", "not read"),
        ]
    if listing.links:
        left.append(LeftOut(listing.links, "links to folders", "read already, or a folder above"))
    return tuple(left)


def _with(end: str) -> str:
    return f"ending in {printable(end)}" if end else "without an ending"


def left_groups(empty: dict[str, Group]) -> tuple[LeftOut, ...]:
    """Return the sub-folders without images."""
    names = [printable(name) for name in sorted(empty)]
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (LeftOut(len(names), f"folders ({shown})", "they hold no images"),) if names else ()
