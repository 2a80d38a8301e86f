"""Image files of a zip or tar archive as a source."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.outline import Outline, spread_runs
from cm_ray.data.interface.source import Batch, LeftOut, Progress, ReadOptions
from cm_ray.data.layouts.archive_tree import ArchiveTree, Member, opened
from cm_ray.data.layouts.identity import digest_of_files
from cm_ray.data.layouts.image_files import ImageFiles
from cm_ray.data.pictures.heads import outline_of_files
from cm_ray.data.pictures.images import batches, decode


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """Some files of an archive with their labels; they are read without the archive's directory."""

    archive: str
    members: tuple[Member, ...]
    labels: tuple[int, ...]

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Decode the files; see `Part.read`."""
        yield from batches(self._items(), options, decode)

    def _items(self) -> Iterator[tuple[str, bytes, int]]:
        with opened(self.archive) as file:
            for member, label in zip(self.members, self.labels, strict=True):
                yield (
                    printable(f"{self.archive}: {member.name}"),
                    member.read(file, self.archive),
                    label,
                )


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """Image files of an archive, in a fixed random order."""

    archive: str
    name: str
    class_names: tuple[str, ...]
    members: tuple[Member, ...]
    labels: tuple[int, ...]
    layout: str
    split: str
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, archive: ArchiveTree[Any], name: str, found: ImageFiles) -> ArchiveSource:
        """Return the source of files that were found in an archive."""
        return cls(
            archive.archive,
            name,
            found.class_names,
            tuple(archive.members[path] for path in found.paths),
            found.labels,
            f"{found.layout}, in a {archive.kind} archive",
            found.split,
            found.left_out,
        )

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels of all files and the headers of some."""
        parts = [
            ArchivePart(self.archive, self.members[start:stop], self.labels[start:stop])
            for start, stop in spread_runs(len(self.members))
        ]
        items = (item for part in parts for item in part._items())
        return outline_of_files(Counter(self.labels), items, options)

    def identity(self, progress: Progress | None = None) -> str:
        """Return the SHA-256 of names, labels, sizes and checksums, from the archive's directory.

        An archive without checksums is read whole, once.
        """
        digest = hashlib.sha256()
        for member, label in zip(self.members, self.labels, strict=True):
            digest.update(f"{member.name!r}\0{label}\0{member.size}\0{member.checksum}\n".encode())
        if any(member.checksum is None for member in self.members):
            path = Path(self.archive)
            digest.update(digest_of_files(path.parent, [path.name], progress).encode())
        return digest.hexdigest()

    def parts(self, rows_per_part: int) -> Sequence[ArchivePart]:
        """Split into runs of files."""
        return [
            ArchivePart(
                self.archive,
                self.members[start : start + rows_per_part],
                self.labels[start : start + rows_per_part],
            )
            for start in range(0, len(self.members), rows_per_part)
        ]
