"""Parquet files of images: encoded, as on the Hugging Face hub, or named by their paths."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cm_ray.data.interface.arrow import pa
from cm_ray.data.interface.bad_image import IncompleteRowError
from cm_ray.data.interface.columns import DEFAULT, Columns
from cm_ray.data.interface.names import printable
from cm_ray.data.interface.outline import Outline, rows_between, spread_runs
from cm_ray.data.interface.source import Batch, LeftOut, Progress, ReadOptions, cut_pieces
from cm_ray.data.layouts.identity import digest_of_files
from cm_ray.data.pictures.heads import outline_of_files
from cm_ray.data.pictures.images import Decoded, batches, decode
from cm_ray.data.tables.linked_images import linked_path, read_linked
from cm_ray.data.tables.parquet_columns import ParquetColumns, check_splits, class_texts, hub_class_names
from cm_ray.data.tables.parquet_files import read_column, read_rows, reading_parquet
from cm_ray.errors import UserError

_ROWS_AT_ONCE = 256  # encoded images in memory at a time


@dataclass(frozen=True, slots=True)
class ParquetPart:
    """Runs of rows (file, start, stop)."""

    pieces: tuple[tuple[str, int, int], ...]
    columns: ParquetColumns

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Decode the rows; see `Part.read`. A row without an image or a label is a bad image."""
        yield from batches(self._items(), options, _decoded)

    def _items(self) -> Iterator[tuple[str, bytes | str, int]]:
        """Yield (name, bytes of the image, or the name of what the row lacks, label)."""
        image, label = self.columns.image, self.columns.label
        wanted = [image, label] if label else [image]
        for file, start, stop in self.pieces:
            path = Path(file)
            for first, table in read_rows(path, wanted, start, stop, _ROWS_AT_ONCE):
                labels = self.columns.numbers(table.column(label)) if label else [-1] * len(table)
                for row, (value, number) in enumerate(zip(table.column(image), labels, strict=True), first):
                    name = f"{printable(file)} row {row}"
                    found = _content(value)
                    data = read_linked(path, found, name) if isinstance(found, str) else found
                    if data is None or number is None:
                        yield name, "image" if data is None else "label", -1
                    else:
                        yield name, data, number


def _decoded(data: bytes | str, options: ReadOptions) -> Decoded:
    if isinstance(data, str):
        raise IncompleteRowError(data)
    return decode(data, options)


def _content(value: pa.Scalar) -> bytes | str | None:
    """Return the bytes of a row's image, or its path where there are none; None without either."""
    found = value.as_py()
    if isinstance(found, dict):
        found = found.get("path") if found.get("bytes") is None else found["bytes"]
    assert found is None or isinstance(found, bytes | str)
    return found


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """Parquet files with a column of images and, mostly, one of labels; see `columns` for their names.

    An image is the bytes of a file, a struct of such bytes and a path, or the path of a file relative to the
    folder of the Parquet file. Labels are numbers of classes, or texts, which name the classes.
    """

    name: str
    class_names: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    """(absolute path, rows) of each file."""
    columns: ParquetColumns
    split: str = ""
    """Name of the split that the files are, if their data set has splits."""
    left_out: tuple[LeftOut, ...] = ()
    """The files beside these that are not read."""

    @classmethod
    def open(cls, paths: Sequence[Path], name: str, wanted: Columns = DEFAULT) -> ParquetSource:
        """Read the files' footers, and the labels if they are texts.

        Raises UserError on a damaged file, on columns that do not fit, and when the choice of them is not
        clear.
        """
        columns: ParquetColumns | None = None
        files, names = [], []
        for path in paths:
            with reading_parquet(path) as parquet:
                schema = parquet.schema_arrow
                columns = columns or ParquetColumns.of(path, schema, wanted)
                columns.check(path, schema)
                names.append(hub_class_names(schema, columns.label))
                files.append((os.path.abspath(path), parquet.metadata.num_rows))
        assert columns is not None, "a source has at least one file"
        odd = next((path for path, other in zip(paths, names, strict=True) if other != names[0]), None)
        if odd:
            raise UserError(
                f"{printable(str(odd))} names other classes than {printable(str(paths[0]))}; give them as "
                "two data sets."
            )
        texts: tuple[str, ...] = ()
        if columns.label and columns.are_texts:
            texts, numbered = class_texts(paths, columns.label)
            columns = replace(columns, texts=numbered)
        check_splits(paths, columns)
        return cls(name, texts or names[0], tuple(files), columns, left_out=columns.left_out)

    @property
    def layout(self) -> str:
        """Phrase for the form of the data and the columns that are read."""
        files = "Parquet files" if len(self.files) > 1 else "a Parquet file"
        labels = f" and labels in {self.columns.label!r}" if self.columns.label else ", without labels"
        return f"{files} with images in {self.columns.image!r}{labels}"

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(rows for _, rows in self.files)

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels of all rows, by reading their column alone, and the headers of some images."""
        pieces = (piece for run in spread_runs(self.count) for piece in rows_between(self.files, *run))
        return outline_of_files(self._labels(), ParquetPart(tuple(pieces), self.columns)._items(), options)

    def _labels(self) -> Counter[int]:
        label = self.columns.label
        if not label:
            return Counter({-1: self.count})
        found: Counter[int] = Counter()
        for file, _ in self.files:
            for column in read_column(Path(file), label):
                found.update(-1 if each is None else each for each in self.columns.numbers(column))
        return found

    def identity(self, progress: Progress | None = None) -> str:
        """Return the digest of the files, of the images that they name, and of the columns that are read."""
        files = [Path(file) for file, _ in self.files]
        root = Path(os.path.commonpath([file.parent for file in files]))
        names = {file.relative_to(root) for file in files}
        for file, (_, rows) in zip(files, self.files, strict=True):
            names |= {(file.parent / path).relative_to(root) for path in self._linked(file, rows)}
        content = digest_of_files(root, [str(name) for name in sorted(names)], progress)
        return hashlib.sha256(f"{content} {self.columns.image!r} {self.columns.label!r}".encode()).hexdigest()

    def _linked(self, file: Path, rows: int) -> Iterator[str]:
        """Yield the paths of the images that a file names. Raises UserError as `linked_path`."""
        if not self.columns.are_paths(file):
            return
        for first, table in read_rows(file, [self.columns.image], 0, rows, _ROWS_AT_ONCE):
            for row, value in enumerate(table.column(0), first):
                found = _content(value)
                if isinstance(found, str):
                    yield linked_path(file, found, f"{printable(str(file))} row {row}")

    def parts(self, rows_per_part: int) -> list[ParquetPart]:
        """Split into runs of rows."""
        return [ParquetPart(pieces, self.columns) for pieces in cut_pieces(self.files, rows_per_part)]
