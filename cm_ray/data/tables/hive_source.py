"""Parquet files in folders `label=…`, as Hive and Spark write them: the folder gives the label."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cm_ray.data.interface.columns import DEFAULT, Columns
from cm_ray.data.interface.outline import Outline
from cm_ray.data.interface.source import Batch, LeftOut, Progress, ReadOptions, cut_pieces
from cm_ray.data.tables.parquet import ParquetPart, ParquetSource
from cm_ray.errors import UserError, setting


@dataclass(frozen=True, slots=True)
class HivePart:
    """Runs of rows, each with the label of its folder."""

    pieces: tuple[tuple[ParquetPart, int], ...]

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Decode the rows; see `Part.read`."""
        for part, label in self.pieces:
            for batch in part.read(options):
                yield replace(batch, labels=np.full_like(batch.labels, label))


@dataclass(frozen=True, slots=True)
class HiveSource:
    """Parquet files of one folder per class."""

    name: str
    class_names: tuple[str, ...]
    classes: tuple[ParquetSource, ...]
    """The files of each class."""
    split: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def open(cls, files: Mapping[str, list[Path]], name: str, wanted: Columns = DEFAULT) -> HiveSource:
        """Read the footers of the files of each class. Raises UserError as `ParquetSource.open`.

        files: the files of a class by its name, in the order of the classes.
        """
        classes = tuple(ParquetSource.open(paths, name, wanted) for paths in files.values())
        if column := next((source.columns.label for source in classes if source.columns.label), None):
            raise UserError(
                f"{name} has labels in the column {column!r} and others by its folders; "
                f"name one by {setting('data.label_column', 'label_column')}."
            )
        return cls(name, tuple(files), classes)

    @property
    def layout(self) -> str:
        """Phrase for the form of the data."""
        return "Parquet files in folders of classes"

    def outline(self, options: ReadOptions) -> Outline:
        """Return the number of rows of each class and the headers of some images of each."""
        outlines = [source.outline(options) for source in self.classes]
        return Outline(
            Counter({label: source.count for label, source in enumerate(self.classes)}),
            tuple(head for outline in outlines for head in outline.heads),
            tuple(name for outline in outlines for name in outline.damaged),
        )

    def identity(self, progress: Progress | None = None) -> str:
        """Return the SHA-256 of the identities and names of the classes."""
        named = zip(self.class_names, self.classes, strict=True)
        digests = [f"{name!r} {source.identity(progress)}" for name, source in named]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def parts(self, rows_per_part: int) -> Sequence[HivePart]:
        """Split into runs of rows."""
        files = [(*file, label) for label, source in enumerate(self.classes) for file in source.files]
        columns = [source.columns for source in self.classes]
        numbered = [(str(number), rows) for number, (_, rows, _) in enumerate(files)]

        def piece(number: str, start: int, stop: int) -> tuple[ParquetPart, int]:
            file, _, label = files[int(number)]
            return ParquetPart(((file, start, stop),), columns[label]), label

        return [HivePart(tuple(piece(*each) for each in run)) for run in cut_pieces(numbered, rows_per_part)]
