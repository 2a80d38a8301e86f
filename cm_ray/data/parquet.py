"""Parquet files of encoded images, in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_ray.data.arrow import pa, pq
from cm_ray.data.identity import digest_of_files
from cm_ray.data.images import batches, decode
from cm_ray.data.source import Batch, LeftOut, Progress, ReadOptions, cut_pieces
from cm_ray.errors import UserError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
_ROWS_AT_ONCE = 256  # encoded images in memory at a time


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file. Raises UserError when it is damaged or cut off."""
    try:
        return pq.ParquetFile(pa.OSFile(os.fsencode(path)))  # as bytes: a name need not be UTF-8
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0].rstrip(".")
    return UserError(f"{path} is not a whole Parquet file ({reason}); fetch it again.")


def _columns(path: Path, schema: pa.Schema) -> tuple[str, str | None]:
    """Return the names of the image column and, if there is one, of the label column."""
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if image is None:
        raise UserError(
            f"{path} has no column 'img' or 'image' (its columns: {', '.join(schema.names)}); "
            "rename the one that holds the images."
        )
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise UserError(
            f"The column {image!r} of {path} is {kind}, not the bytes of image files; encode them."
        )
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if label and not pa.types.is_integer(schema.field(label).type):
        raise UserError(
            f"The column {label!r} of {path} is {schema.field(label).type}, not integers; number the classes."
        )
    return image, label


def hub_class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    """Return the class names in the metadata that the hub writes into a schema; () if there are none."""
    try:
        features: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


@dataclass(frozen=True, slots=True)
class ParquetPart:
    """Runs of rows (file, start, stop)."""

    pieces: tuple[tuple[str, int, int], ...]

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Decode the rows; see `Part.read`."""
        yield from batches(self._items(), options, decode)

    def _items(self) -> Iterator[tuple[str, bytes, int]]:
        for file, start, stop in self.pieces:
            with open_parquet(Path(file)) as parquet:
                yield from _rows(Path(file), parquet, start, stop)


def _rows(path: Path, parquet: pq.ParquetFile, start: int, stop: int) -> Iterator[tuple[str, bytes, int]]:
    """Yield (name, bytes, label) of rows start to stop, reading only the row groups that hold them."""
    image, label = _columns(path, parquet.schema_arrow)
    first, position = 0, 0
    groups: list[int] = []
    for index in range(parquet.num_row_groups):
        end = position + parquet.metadata.row_group(index).num_rows
        if end > start and position < stop:
            first = position if not groups else first
            groups.append(index)
        position = end
    row = first
    try:
        for table in parquet.iter_batches(
            _ROWS_AT_ONCE, row_groups=groups, columns=[image, label] if label else [image], use_threads=False
        ):
            low, high = max(start - row, 0), min(stop - row, len(table))
            if low < high:
                yield from _items_of(path, table.slice(low, high - low), row + low, image, label)
            row += len(table)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _items_of(
    path: Path, table: pa.RecordBatch, row: int, image: str, label: str | None
) -> Iterator[tuple[str, bytes, int]]:
    column = table.column(image)
    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    labels = table.column(label).to_pylist() if label else [-1] * len(table)
    for offset, (data, number) in enumerate(zip(column, labels, strict=True)):
        name = f"{path} row {row + offset}"
        if number is None:
            raise UserError(f"{name} has no label; label every row or drop the column {label!r}.")
        yield name, data.as_py() or b"", number


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """Parquet files with a column `img` or `image` (the bytes of image files) and an optional `label`."""

    name: str
    class_names: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    """(absolute path, rows) of each file."""
    split: str = ""
    """Name of the split that the files are, if their data set has splits."""
    left_out: tuple[LeftOut, ...] = ()
    """What lies beside the files and is not read."""

    @classmethod
    def open(cls, paths: list[Path], name: str) -> ParquetSource:
        """Read the files' footers. Raises UserError on a damaged file and on columns that do not fit."""
        files, names = [], []
        for path in paths:
            with open_parquet(path) as parquet:
                _, label = _columns(path, parquet.schema_arrow)
                names.append(hub_class_names(parquet.schema_arrow, label))
                files.append((str(path.resolve()), parquet.metadata.num_rows))
        odd = next((path for path, other in zip(paths, names, strict=True) if other != names[0]), None)
        if odd:
            raise UserError(f"{odd} names other classes than {paths[0]}; give them as two data sets.")
        return cls(name, names[0], tuple(files))

    @property
    def layout(self) -> str:
        """Phrase for the form of the data."""
        return "Parquet files" if len(self.files) > 1 else "a Parquet file"

    def identity(self, progress: Progress | None = None) -> str:
        """Return the digest of the files' names and contents."""
        files = [Path(file) for file, _ in self.files]
        root = Path(os.path.commonpath([file.parent for file in files]))
        return digest_of_files(root, [str(file.relative_to(root)) for file in files], progress)

    def parts(self, rows_per_part: int) -> list[ParquetPart]:
        """Split into runs of rows."""
        return [ParquetPart(pieces) for pieces in cut_pieces(self.files, rows_per_part)]
