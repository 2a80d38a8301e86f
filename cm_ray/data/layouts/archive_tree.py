"""Files of an archive as folders: what zip and tar archives have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import IO, Generic, Protocol, TypeVar

from cm_ray.data.interface.names import printable
from cm_ray.data.layouts.disk import reading
from cm_ray.data.layouts.file_tree import Entries, is_visible
from cm_ray.errors import UserError
from cm_ray.storage.file_kinds import file_stand_in

MOST_MEMBER_BYTES = 1 << 29
"""Greatest size of a file in an archive, since a small archive can hold a file that fills the memory."""
_MOST_DEPTH = 100


class Member(Protocol):
    """A file in an archive: small, picklable, read without the archive's directory."""

    @property
    def name(self) -> str:
        """Path in the archive."""

    @property
    def size(self) -> int:
        """Bytes of the file."""

    @property
    def checksum(self) -> int | None:
        """Checksum of its content, if the archive has it."""

    def read(self, file: IO[bytes], archive: str, most: int | None = None) -> bytes:
        """Return the file, or its first `most` bytes, from the opened archive.

        Raises UserError when it is damaged, and when a whole file has more than `MOST_MEMBER_BYTES`.
        """


M = TypeVar("M", bound=Member)


def damaged(archive: str, kind: str, reason: str) -> UserError:
    """Return the error for an archive that is not whole. kind: zip or tar."""
    first = printable((reason.splitlines() or ["unknown"])[0].rstrip("."))
    shown = printable(archive)
    if found := file_stand_in(Path(archive)):
        return UserError(f"{shown} is {found}.")
    return UserError(f"{shown} is not a whole {kind} archive ({first}); fetch or write it again.")


def wanted_bytes(member: Member, archive: str, most: int | None) -> int:
    """Return how many bytes of a file are wanted. Raises UserError when it is too large."""
    wanted = member.size if most is None else min(most, member.size)
    if wanted > MOST_MEMBER_BYTES:
        raise UserError(
            f"{printable(member.name)} in {printable(archive)} has more than {MOST_MEMBER_BYTES >> 20} MiB; "
            "leave it out."
        )
    return wanted


@contextlib.contextmanager
def opened(archive: str) -> Iterator[IO[bytes]]:
    """Open an archive for `Member.read`. Raises UserError when it cannot be read."""
    with reading(archive), open(archive, "rb") as file:
        yield file


class ArchiveTree(Generic[M]):
    """The files of an archive; see `Store`."""

    is_archive = True
    kind = ""
    """The kind of the archive, in messages."""

    def __init__(self, archive: Path) -> None:
        self.archive = str(archive)
        self.name = archive.stem
        self.members: dict[str, M] = {}
        self._entries: dict[str, Entries] = {"": Entries([], [])}

    def damaged(self, reason: str) -> UserError:
        """Return the error for an archive that is not whole."""
        return damaged(self.archive, self.kind, reason)

    def parts_of(self, full: str) -> list[str]:
        """Return the folders and the name of a file; [] for one that is hidden.

        Raises UserError when the name leads out of the archive or too deep.
        """
        parts = [part for part in full.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise UserError(
                f"{printable(self.archive)} holds a file whose name leads out of its folder, "
                f"{printable(full)!r}; write the archive again."
            )
        if not all(is_visible(part) for part in parts):
            return []
        if len(parts) > _MOST_DEPTH:
            raise self.damaged(f"its folders lie more than {_MOST_DEPTH} deep")
        return parts

    def add(self, parts: list[str], member: M) -> None:
        """Add a file; of several with one name, the last is valid."""
        folder, path = self.add_folder(parts[:-1]), "/".join(parts)
        if path in self._entries:
            raise self.damaged(f"{path} is a file and a folder")
        if path not in self.members:
            self._entries[folder].files.append(parts[-1])
        self.members[path] = member

    def add_folder(self, parts: list[str]) -> str:
        """Return the path of a folder, after adding it and the folders above it."""
        path = "/".join(parts)
        if path not in self._entries:
            if path in self.members:
                raise self.damaged(f"{path} is a file and a folder")
            self._entries[path] = Entries([], [])
            self._entries[self.add_folder(parts[:-1])].folders.append(parts[-1])
        return path

    def place(self, path: str) -> str:
        """Return a path as text for messages."""
        return f"{printable(self.archive)}: {printable(path)}" if path else printable(self.archive)

    def entries(self, path: str) -> Entries:
        """Return the names in a folder."""
        return self._entries[path]

    def read(self, path: str, most: int) -> bytes:
        """Return the first bytes of a file. Raises UserError when it is damaged."""
        with opened(self.archive) as file:
            return self.members[path].read(file, self.archive, most)

    def key(self, path: str) -> Hashable:
        """Return the path itself: an archive has no links."""
        return path

    def keys_above(self, path: str) -> set[Hashable]:
        """Return no keys, since no link leads upwards."""
        return set()
