"""Files in a zip archive, listed from its directory and read one by one, without unpacking the archive.

A part of a data set knows where its members lie, so that no worker reads the directory of the archive again.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cm_ray.data.interface.names import printable
from cm_ray.data.layouts.file_tree import Entries, is_visible
from cm_ray.errors import UserError
from cm_ray.storage.file_kinds import file_stand_in

MOST_MEMBER_BYTES = 1 << 29
"""Greatest size of a file in an archive, since a small archive can hold a file that fills the memory."""
_ENCRYPTED = 0x1
_MOST_DEPTH = 100
_TABLES = 1024  # bytes that may come before the first byte of deflated data
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DEFLATED_MOST = 1032
"""Greatest factor by which deflate shrinks data; an archive that claims more is not what it says."""


class Member(NamedTuple):
    """A file in an archive: its name, and where and how it lies there."""

    name: str
    offset: int
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes of the file."""
    crc: int
    deflated: bool


@contextlib.contextmanager
def _reading(archive: str) -> Iterator[None]:
    """Turn the exceptions of zipfile and zlib on a damaged or missing archive into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Could not read {printable(archive)} ({error.strerror or error}); every machine must be able to "
            "read it."
        ) from error
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError) as error:
        raise damaged(archive, str(error) or type(error).__name__) from error


def damaged(archive: str, reason: str) -> UserError:
    """Return the error for an archive that is not whole."""
    first = printable((reason.splitlines() or ["unknown"])[0].rstrip("."))
    if found := file_stand_in(Path(archive)):
        return UserError(f"{printable(archive)} is {found}.")
    return UserError(f"{printable(archive)} is not a whole zip archive ({first}); fetch or write it again.")


class ZipArchive:
    """The files of a zip archive; see `Store`."""

    is_archive = True

    def __init__(self, archive: Path) -> None:
        """Read the directory of an archive. Raises UserError when it is damaged, encrypted or a trap."""
        self.archive = str(archive)
        self.name = archive.stem
        self.members: dict[str, Member] = {}
        self._entries: dict[str, Entries] = {"": Entries([], [])}
        with _reading(self.archive), zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                self._add(info)
        self._check_overlap()

    def _add(self, info: zipfile.ZipInfo) -> None:
        full = info.filename.replace("\\", "/")  # some programs of Windows write the wrong sign
        parts = [part for part in full.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise UserError(
                f"{printable(self.archive)} holds a file whose name leads out of its folder, "
                f"{printable(full)!r}; write the archive again."
            )
        if not parts or not all(is_visible(part) for part in parts):
            return
        if len(parts) > _MOST_DEPTH:
            raise damaged(self.archive, f"its folders lie more than {_MOST_DEPTH} deep")
        if full.endswith("/"):
            self._folder(parts)
            return
        folder, path, name = self._folder(parts[:-1]), "/".join(parts), parts[-1]
        if path in self._entries:
            raise damaged(self.archive, f"{path} is a file and a folder")
        if path not in self.members:
            self._entries[folder].files.append(name)
        self.members[path] = self._member(path, info)  # of several with one name, the last is valid

    def _folder(self, parts: list[str]) -> str:
        """Return the path of a folder, after adding it and the folders above it."""
        path = "/".join(parts)
        if path not in self._entries:
            if path in self.members:
                raise damaged(self.archive, f"{path} is a file and a folder")
            self._entries[path] = Entries([], [])
            self._entries[self._folder(parts[:-1])].folders.append(parts[-1])
        return path

    def _member(self, path: str, info: zipfile.ZipInfo) -> Member:
        shown = f"{printable(path)} in {printable(self.archive)}"
        if info.flag_bits & _ENCRYPTED:
            raise UserError(f"{shown} is encrypted; unpack the archive and give the folder.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{shown} is packed neither by deflate nor not at all; write the archive again.")
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        most = info.compress_size * (_DEFLATED_MOST if deflated else 1)
        if info.file_size > most:
            raise damaged(self.archive, f"{path} claims more bytes than it can hold")
        return Member(path, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)

    def _check_overlap(self) -> None:
        """Raise UserError when files share bytes of the archive, so that it holds more than it can."""
        end, before = 0, ""
        for member in sorted(self.members.values(), key=lambda member: member.offset):
            if member.offset < end:
                raise damaged(self.archive, f"{member.name} lies over {before}")
            end, before = member.offset + _LOCAL_HEADER.size + member.packed, member.name

    def place(self, path: str) -> str:
        """Return a path as text for messages."""
        return f"{printable(self.archive)}: {printable(path)}" if path else printable(self.archive)

    def entries(self, path: str) -> Entries:
        """Return the names in a folder."""
        return self._entries[path]

    def read(self, path: str, most: int) -> bytes:
        """Return the first bytes of a file. Raises UserError when it is damaged."""
        with opened(self.archive) as file:
            return read_member(file, self.archive, self.members[path], most)

    def key(self, path: str) -> Hashable:
        """Return the path itself: an archive has no links."""
        return path

    def keys_above(self, path: str) -> set[Hashable]:
        """Return no keys, since no link leads upwards."""
        return set()


@contextlib.contextmanager
def opened(archive: str) -> Iterator[IO[bytes]]:
    """Open an archive for `read_member`. Raises UserError when it cannot be read."""
    with _reading(archive), open(archive, "rb") as file:
        yield file


def read_member(file: IO[bytes], archive: str, member: Member, most: int | None = None) -> bytes:
    """Return a file in an opened archive, or its first `most` bytes.

    Raises UserError when it is damaged, and when a whole file has more than `MOST_MEMBER_BYTES`.
    """
    wanted = member.size if most is None else min(most, member.size)
    if wanted > MOST_MEMBER_BYTES:
        raise UserError(
            f"{printable(member.name)} in {printable(archive)} has more than {MOST_MEMBER_BYTES >> 20} MiB; "
            "leave it out."
        )
    whole = wanted == member.size
    with _reading(archive):
        file.seek(member.offset)
        magic, *lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if magic != b"PK\x03\x04":
            raise damaged(archive, f"there is no file at the place of {member.name}")
        file.seek(sum(lengths), 1)
        data = file.read(member.packed if whole else min(member.packed, wanted + _TABLES))
        if member.deflated:  # one byte more shows a file that is longer than it says
            data = zlib.decompressobj(-15).decompress(data, wanted + 1)
    if whole and (len(data) != member.size or zlib.crc32(data) != member.crc):
        raise damaged(archive, f"{member.name} has other bytes than it should")
    return data[:wanted]
