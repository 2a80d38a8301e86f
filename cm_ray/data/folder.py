"""A folder of image files; sub-folders are classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cm_ray.data.images import batches, decode
from cm_ray.data.source import Batch, LeftOut, ReadOptions
from cm_ray.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def image_files(folder: Path, *, deep: bool) -> list[str]:
    """Return the image files in `folder` (and below it, if `deep`), as sorted relative paths.

    Hidden files and folders are left out; links are followed.
    """
    found = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")] if deep else []
        base = Path(where).relative_to(folder)
        found += [
            (base / name).as_posix()
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)


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
            path = Path(self.root) / file
            try:
                data = path.read_bytes()
            except OSError as error:  # not a bad image: images on a missing disk must not count as skipped
                raise UserError(
                    f"Could not read {path} ({error.strerror}); every machine must be able to read it."
                ) from error
            yield str(path), data, label


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Image files, all in one folder (without labels) or in one sub-folder per class (sorted by name).

    Their order is a fixed permutation.
    """

    root: Path
    name: str
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]
    split: str = ""
    """Name of the split that the folder is, if its data set has splits."""
    left_out: tuple[LeftOut, ...] = ()
    """What lies in the folder and is not read."""

    @classmethod
    def open(cls, root: Path, name: str) -> FolderSource:
        """List the images below `root`. Raises UserError when there are none or the layout is unclear."""
        root = root.resolve()
        top = image_files(root, deep=False)
        listed = {
            sub.name: image_files(sub, deep=True)
            for sub in sorted(root.iterdir(), key=lambda path: path.name)
            if sub.is_dir() and not sub.name.startswith(".")
        }
        classes = {sub: files for sub, files in listed.items() if files}
        if top and classes:
            raise UserError(
                f"{root} holds images both directly ({top[0]}) and in the sub-folder {next(iter(classes))!r}"
                "; move them into class sub-folders, or all into one folder."
            )
        if not top and not classes:
            raise UserError(
                f"{root} holds no images ({', '.join(EXTENSIONS)}) and no Parquet files; give another folder."
            )
        files = top + [f"{sub}/{file}" for sub, inside in classes.items() for file in inside]
        labels = [-1] * len(top) + [i for i, inside in enumerate(classes.values()) for _ in inside]
        # Without it, classes would lie one after the other, and a stream that shuffles a few row groups at
        # a time would give batches of few classes.
        order = np.random.default_rng(0).permutation(len(files)).tolist()
        return cls(
            root, name, tuple(classes), tuple(files[i] for i in order), tuple(labels[i] for i in order)
        )

    @property
    def layout(self) -> str:
        """Phrase for how the files lie in the folder."""
        return "image files in class folders" if self.class_names else "image files"

    @property
    def identity(self) -> str:
        """SHA-256 of the files' relative paths, sizes and modification times."""
        digest = hashlib.sha256()
        for file in self.files:
            stat = (self.root / file).stat()
            digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def parts(self, rows_per_part: int) -> list[FolderPart]:
        """Split into runs of files."""
        return [
            FolderPart(
                str(self.root),
                self.files[start : start + rows_per_part],
                self.labels[start : start + rows_per_part],
            )
            for start in range(0, len(self.files), rows_per_part)
        ]
