"""Files in a zip archive, listed from its directory and read one by one, without unpacking the archive.

A part of a data set knows where its members lie, so that no worker reads the directory of the archive again.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cm_ray.data.interface.names import printable
from cm_ray.data.layouts.archive_tree import ArchiveTree, damaged, wanted_bytes
from cm_ray.data.layouts.disk import reading
from cm_ray.errors import UserError

_ENCRYPTED = 0x1
_TABLES = 1024  # bytes that may come before the first byte of deflated data
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DEFLATED_MOST = 1032
"""Greatest factor by which deflate shrinks data; an archive that claims more is not what it says."""


@contextlib.contextmanager
def _reading(archive: str) -> Iterator[None]:
    """Turn the exceptions of zipfile and zlib on a damaged or missing archive into a UserError."""
    try:
        with reading(archive):
            yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError) as error:
        raise damaged(archive, "zip", str(error) or type(error).__name__) from error


class ZipMember(NamedTuple):
    """A file in a zip archive: its name, and where and how it lies there; see `Member`."""

    name: str
    offset: int
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes of the file."""
    checksum: int
    deflated: bool

    def read(self, file: IO[bytes], archive: str, most: int | None = None) -> bytes:
        """Return the file or its first bytes; see `Member.read`."""
        wanted = wanted_bytes(self, archive, most)
        whole = wanted == self.size
        with _reading(archive):
            file.seek(self.offset)
            magic, *lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if magic != b"PK\x03\x04":
                raise damaged(archive, "zip", f"there is no file at the place of {self.name}")
            file.seek(sum(lengths), 1)
            data = file.read(self.packed if whole else min(self.packed, wanted + _TABLES))
            if self.deflated:  # one byte more shows a file that is longer than it says
                data = zlib.decompressobj(-15).decompress(data, wanted + 1)
        if whole and (len(data) != self.size or zlib.crc32(data) != self.checksum):
            raise damaged(archive, "zip", f"{self.name} has other bytes than it should")
        return data[:wanted]


class ZipArchive(ArchiveTree[ZipMember]):
    """The files of a zip archive; see `Store`."""

    kind = "zip"

    def __init__(self, archive: Path) -> None:
        """Read the directory of an archive. Raises UserError when it is damaged, encrypted or a trap."""
        super().__init__(archive)
        with _reading(self.archive), zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                self._add(info)
        self._check_overlap()

    def _add(self, info: zipfile.ZipInfo) -> None:
        full = info.filename.replace("\\", "/")  # some programs of Windows write the wrong sign
        parts = self.parts_of(full)
        if parts and full.endswith("/"):
            self.add_folder(parts)
        elif parts:
            self.add(parts, self._member("/".join(parts), info))

    def _member(self, path: str, info: zipfile.ZipInfo) -> ZipMember:
        shown = f"{printable(path)} in {printable(self.archive)}"
        if info.flag_bits & _ENCRYPTED:
            raise UserError(f"{shown} is encrypted; unpack the archive and give the folder.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{shown} is packed neither by deflate nor not at all; write the archive again.")
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        most = info.compress_size * (_DEFLATED_MOST if deflated else 1)
        if info.file_size > most:
            raise self.damaged(f"{path} claims more bytes than it can hold")
        return ZipMember(path, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)

    def _check_overlap(self) -> None:
        """Raise UserError when files share bytes of the archive, so that it holds more than it can."""
        end, before = 0, ""
        for member in sorted(self.members.values(), key=lambda member: member.offset):
            if member.offset < end:
                raise self.damaged(f"{member.name} lies over {before}")
            end, before = member.offset + _LOCAL_HEADER.size + member.packed, member.name
