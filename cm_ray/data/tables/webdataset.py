"""Tar archives of samples, as WebDataset has them: the files of a sample have one name and several endings.

``000017.jpg``, ``000017.cls`` and ``000017.json`` are a sample; the part of a name behind its first dot is
the field. Fields are what columns are in other tables.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cm_ray.data.interface.bad_image import IncompleteRowError
from cm_ray.data.interface.columns import DEFAULT, Columns
from cm_ray.data.interface.names import printable
from cm_ray.data.interface.outline import Outline, spread_runs
from cm_ray.data.interface.source import Batch, LeftOut, Progress, ReadOptions
from cm_ray.data.layouts.archive_tree import opened
from cm_ray.data.layouts.identity import digest_of_files
from cm_ray.data.layouts.tar_archive import TarArchive, TarMember
from cm_ray.data.pictures.heads import outline_of_files
from cm_ray.data.pictures.images import Decoded, batches, decode
from cm_ray.data.tables.webdataset_samples import IMAGE, Sample, SampleFields, numbered, samples_of
from cm_ray.errors import UserError, setting


@dataclass(frozen=True, slots=True)
class Row:
    """The image of a sample, and its label; None where it lacks one that others have."""

    archive: str
    image: TarMember
    label: int | None


@dataclass(frozen=True, slots=True)
class WebDatasetPart:
    """Some samples; they are read without the headers of the archives."""

    rows: tuple[Row, ...]

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Decode the images; see `Part.read`. A sample that lacks its label is a bad image."""
        yield from batches(self._items(), options, _decoded)

    def _items(self) -> Iterator[tuple[str, bytes | str, int]]:
        """Yield (name, bytes of the image, or the name of what the sample lacks, label)."""
        start = 0
        while start < len(self.rows):
            archive = self.rows[start].archive
            with opened(archive) as file:
                while start < len(self.rows) and self.rows[start].archive == archive:
                    row = self.rows[start]
                    name = f"{printable(archive)}: {printable(row.image.name)}"
                    missing = row.label is None
                    yield name, "label" if missing else row.image.read(file, archive), row.label or 0
                    start += 1


def _decoded(data: bytes | str, options: ReadOptions) -> Decoded:
    if isinstance(data, str):
        raise IncompleteRowError(data)
    return decode(data, options)


@dataclass(frozen=True, slots=True)
class WebDatasetSource:
    """The samples of one or several tar archives, in the order of the archives."""

    name: str
    class_names: tuple[str, ...]
    rows: tuple[Row, ...]
    layout: str
    archives: tuple[str, ...]
    split: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def open(
        cls, paths: Sequence[Path], name: str, wanted: Columns = DEFAULT, first: TarArchive | None = None
    ) -> WebDatasetSource:
        """Read the headers of archives and the labels in them.

        first: the first of them, if it is open. Raises UserError on a damaged archive, on fields that do not
        fit, and when the choice of them is not clear.
        """
        archives = [first] if first else []
        archives += [TarArchive(path) for path in paths[len(archives) :]]
        found = [(archive.archive, sample) for archive in archives for sample in samples_of(archive)]
        noun = "a WebDataset archive" if len(archives) == 1 else f"{len(archives)} WebDataset archives"
        fields = SampleFields.of(printable(str(paths[0])), found, wanted)
        kept = [(archive, sample) for archive, sample in found if fields.image_of(sample)]
        if not kept:
            raise UserError(f"{printable(str(paths[0]))} holds no images that can be read; give another.")
        if not (fields.label or wanted.label):
            _check_no_classes(kept)
        labels, names = numbered(fields, kept)
        rows = tuple(
            Row(archive, fields.image_of(sample), label)  # type: ignore[arg-type]  # they have one
            for (archive, sample), label in zip(kept, labels, strict=True)
        )
        where = tuple(os.path.abspath(archive) for archive in (each.archive for each in archives))
        return cls(name, names, rows, f"{noun} {fields.described}", where, left_out=_left(found, fields))

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels of all samples and the headers of some images."""
        labels = Counter(-1 if row.label is None else row.label for row in self.rows)
        looked_at = [row for start, stop in spread_runs(len(self.rows)) for row in self.rows[start:stop]]
        return outline_of_files(labels, WebDatasetPart(tuple(looked_at))._items(), options)

    def identity(self, progress: Progress | None = None) -> str:
        """Return the digest of the archives, of the images' names and of the labels."""
        root = Path(os.path.commonpath([Path(archive).parent for archive in self.archives]))
        names = [str(Path(archive).relative_to(root)) for archive in self.archives]
        digest = hashlib.sha256(digest_of_files(root, names, progress).encode())
        for row in self.rows:
            digest.update(f"{row.image.name!r}\0{row.label}\n".encode())
        return digest.hexdigest()

    def parts(self, rows_per_part: int) -> list[WebDatasetPart]:
        """Split into runs of samples."""
        starts = range(0, len(self.rows), rows_per_part)
        return [WebDatasetPart(self.rows[start : start + rows_per_part]) for start in starts]


def _check_no_classes(samples: Sequence[tuple[str, Sample]]) -> None:
    """Raise UserError when samples without labels lie in several folders, which may be classes."""
    folders = sorted({sample.key.rpartition("/")[0] for _, sample in samples})
    if len(folders) > 1:
        raise UserError(
            f"{printable(samples[0][0])} has no labels, and its images lie in several folders "
            f"({printable(folders[0] or '.')}, {printable(folders[1])}); give one archive of class folders "
            f"by its own path, or unpack them, or set {setting('data.label_column', 'label_column')} to none."
        )


def _left(found: Sequence[tuple[str, Sample]], fields: SampleFields) -> tuple[LeftOut, ...]:
    """Return the samples without an image, and the fields that are not read."""
    empty = sum(not fields.image_of(sample) for _, sample in found)
    counts = Counter(name for _, sample in found for name in sample.fields if name not in fields.read)
    others = [
        LeftOut(count, f"files ending in .{printable(name)}", "fields that are not read")
        for name, count in sorted(counts.items())
        if name != IMAGE
    ]
    return (*((LeftOut(empty, "samples", "they have no image"),) if empty else ()), *others)
