"""Files in a tar archive that is not compressed, listed from their headers and read where they lie."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import IO, NamedTuple

from cm_ray.data.interface.names import printable
from cm_ray.data.layouts.archive_tree import ArchiveTree, damaged, opened, wanted_bytes
from cm_ray.data.layouts.disk import reading
from cm_ray.errors import UserError

_BLOCK = 512
_CHUNK = 1 << 20


class TarMember(NamedTuple):
    """A file in a tar archive: its name, and where it lies; see `Member`."""

    name: str
    offset: int
    """Place of its first byte."""
    size: int

    @property
    def checksum(self) -> None:
        """None: tar has checksums of headers alone."""
        return None

    @property
    def end(self) -> int:
        """Place of the header of the next file."""
        return self.offset + -(-self.size // _BLOCK) * _BLOCK

    def read(self, file: IO[bytes], archive: str, most: int | None = None) -> bytes:
        """Return the file or its first bytes; see `Member.read`."""
        wanted = wanted_bytes(self, archive, most)
        with reading(archive):
            file.seek(self.offset)
            data = file.read(wanted)
        if len(data) < wanted:
            raise damaged(archive, "tar", f"{self.name} is cut off")
        return data


class TarArchive(ArchiveTree[TarMember]):
    """The files of a tar archive; see `Store`."""

    kind = "tar"

    def __init__(self, archive: Path) -> None:
        """Read all headers of an archive. Raises UserError when it is damaged, or has links or holes."""
        super().__init__(archive)
        end = 0
        try:
            with reading(self.archive), tarfile.open(archive, "r:") as headers:
                while (info := headers.next()) is not None:
                    headers.members = []  # type: ignore[attr-defined]  # else it keeps all
                    end = TarMember("", info.offset_data, info.size if info.isreg() else 0).end
                    self._add(info)
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            raise self.damaged(str(error) or type(error).__name__) from error
        self._check_end(end)

    def _add(self, info: tarfile.TarInfo) -> None:
        parts = self.parts_of(info.name)
        if not parts:
            return
        if info.isdir():
            self.add_folder(parts)
            return
        if not info.isreg() or info.issparse():
            what = "a link" if info.issym() or info.islnk() else "no ordinary file"
            raise UserError(
                f"{printable(info.name)} in {printable(self.archive)} is {what}; unpack the archive and give "
                "the folder."
            )
        self.add(parts, TarMember("/".join(parts), info.offset_data, info.size))

    def _check_end(self, end: int) -> None:
        """Raise UserError unless zeros alone follow the last file: tarfile stops at a damaged header."""
        with opened(self.archive) as file:
            size = os.fstat(file.fileno()).st_size
            if size < end + _BLOCK:
                raise self.damaged("its end is missing")
            file.seek(end)
            while chunk := file.read(_CHUNK):
                if any(chunk):
                    raise self.damaged("there is something behind its last file")
