"""Image files of a folder as a source."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.outline import Outline, spread_runs
from cm_ray.data.interface.source import Batch, LeftOut, Progress, ReadOptions
from cm_ray.data.layouts.disk import Disk, reading
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.identity import digest_of_files
from cm_ray.data.layouts.image_files import ImageFiles
from cm_ray.data.pictures.heads import outline_of_files
from cm_ray.data.pictures.images import batches, decode


def image_files(folder: Path) -> list[str]:
    """Return the image files in a folder and below it, as sorted relative paths.

    Hidden files and folders are left out; links are followed, but each real folder is visited once. Raises
    UserError when a folder cannot be listed.
    """
    found = Folder(Disk(os.path.abspath(folder))).walk()
    return sorted(path for each in found for path in each.paths(each.files.images))


@dataclass(frozen=True, slots=True)
class FolderPart:
    """Some files of a folder with their labels."""

    root: str
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Decode the files; see `Part.read`."""
        yield from batches(self._items(), options, decode)

    def _items(self) -> Iterator[tuple[str, bytes, int]]:
        for file, label in zip(self.files, self.labels, strict=True):
            path = os.path.join(self.root, file)
            with (
                reading(path),
                open(path, "rb") as opened,
            ):  # images on a missing disk do not count as skipped
                data = opened.read()
            yield printable(path), data, label


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Image files of a folder, in a fixed random order."""

    root: Path
    name: str
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]
    layout: str
    split: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def of(cls, root: Path, name: str, found: ImageFiles) -> FolderSource:
        """Return the source of files that were found below a folder."""
        return cls(
            root,
            name,
            found.class_names,
            found.paths,
            found.labels,
            found.layout,
            found.split,
            found.left_out,
        )

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels of all files and the headers of some."""
        parts = [
            FolderPart(str(self.root), self.files[start:stop], self.labels[start:stop])
            for start, stop in spread_runs(len(self.files))
        ]
        items = (item for part in parts for item in part._items())
        return outline_of_files(Counter(self.labels), items, options)

    def identity(self, progress: Progress | None = None) -> str:
        """Return the digest of the files' relative paths, labels and contents."""
        content = [digest_of_files(self.root, self.files, progress), self.labels]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def parts(self, rows_per_part: int) -> Sequence[FolderPart]:
        """Split into runs of files."""
        return [
            FolderPart(
                str(self.root),
                self.files[start : start + rows_per_part],
                self.labels[start : start + rows_per_part],
            )
            for start in range(0, len(self.files), rows_per_part)
        ]
