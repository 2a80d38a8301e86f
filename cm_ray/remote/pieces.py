"""A log that grows, as objects: pieces that are named by their places in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cm_ray.remote.objects import Objects, Stored
from cm_ray.remote.writer import Writer
from cm_ray.storage.files import written_aside

_FULL = 64 << 10
"""Bytes of a piece from which on the next one begins; a shorter one is written again with more rows."""


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    size: int
    sha256: str
    etag: str = ""

    @property
    def stop(self) -> int:
        return self.start + self.size


class Pieces:
    """The pieces of one log file in a folder of objects, such as metrics/000000000000.jsonl."""

    def __init__(self, folder: str, file: Path) -> None:
        self.folder, self.file = folder, file
        self._pieces: list[_Piece] = []
        self._inode = 0

    def pull(self, objects: Objects) -> None:
        """Make the local file what the pieces are together; pieces that have not changed are not read."""
        known = {(piece.start, piece.etag): piece for piece in self._pieces}
        before = self.file.read_bytes() if self._pieces and self.file.is_file() else b""
        pieces, content = [], []
        for start, stored in self._contiguous(objects.list(self.folder)):
            if piece := known.get((start, stored.etag)):
                data = before[piece.start : piece.stop]
            else:
                data = objects.read_range(self._key(start), 0, stored.size, stored.etag)
            pieces.append(_Piece(start, len(data), _digest(data), stored.etag))
            content.append(data)
        if pieces and pieces != self._pieces:
            with written_aside(self.file) as aside:
                aside.write_bytes(b"".join(content))
        self._pieces = pieces
        self._inode = self.file.stat().st_ino if self.file.is_file() else 0

    def captured(self) -> bytes | None:
        """Return the content of the local file; None without one."""
        return self.file.read_bytes() if self.file.is_file() else None

    def push(self, writer: Writer, content: bytes) -> None:
        """Write what is new since the last call; pieces of rows that the file has no longer are removed."""
        kept = self._kept(content)
        for stale in reversed(self._pieces[len(kept) :]):
            if stale.start > (kept[-1].stop if kept else 0):
                writer.remove(self._key(stale.start))
        if kept and kept[-1].size < _FULL and len(content) > kept[-1].stop:
            kept.pop()
        start = kept[-1].stop if kept else 0
        if len(content) > start:
            new = content[start:]
            writer.put(self._key(start), new)
            kept.append(_Piece(start, len(new), _digest(new)))
        elif len(self._pieces) > len(kept) and self._pieces[len(kept)].start == start:
            writer.remove(self._key(start))
        self._pieces = kept

    def _kept(self, content: bytes) -> list[_Piece]:
        """Return the first pieces that the content still has; they are compared when it was rewritten."""
        inode = self.file.stat().st_ino if self.file.is_file() else 0
        rewritten, self._inode = inode != self._inode, inode
        kept = []
        for piece in self._pieces:
            if piece.stop > len(content):
                break
            if rewritten and _digest(content[piece.start : piece.stop]) != piece.sha256:
                break
            kept.append(piece)
        return kept

    def _contiguous(self, listed: dict[str, Stored]) -> list[tuple[int, Stored]]:
        """Return the pieces from the beginning on, up to the first gap: what follows was left by a kill."""
        found, end = [], 0
        for key, stored in sorted(listed.items()):
            name = key.rpartition("/")[2].partition(".")[0]
            if not name.isdecimal() or int(name) != end:
                break
            found.append((end, stored))
            end += stored.size
        return found

    def _key(self, start: int) -> str:
        return f"{self.folder}/{start:012d}{self.file.suffix}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
