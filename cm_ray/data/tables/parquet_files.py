"""Parquet files: opening them, and reading the values of columns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cm_ray.data.interface.arrow import pa, pq
from cm_ray.data.interface.names import printable
from cm_ray.errors import UserError
from cm_ray.storage.file_kinds import file_stand_in

_ROWS_AT_ONCE = 1 << 16  # of small values


@contextlib.contextmanager
def reading_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file. Raises UserError when it is damaged or cut off, also while it is read."""
    try:
        with pa.OSFile(os.fsencode(path)) as file, pq.ParquetFile(file) as parquet:  # a name may not be UTF-8
            yield parquet
    except (pa.ArrowException, OSError) as error:
        if found := file_stand_in(path):
            raise UserError(f"{printable(str(path))} is {found}.") from error
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{printable(str(path))} is not a whole Parquet file ({reason}); fetch it again."
        ) from error


def read_column(path: Path, column: str) -> Iterator[pa.Array]:
    """Yield the values of a column, some rows at a time; no other column is read.

    column: a name, or that of a field in a struct, such as image.path. Raises UserError when the file is
    damaged.
    """
    with reading_parquet(path) as parquet:
        for table in parquet.iter_batches(_ROWS_AT_ONCE, columns=[column], use_threads=False):
            values = table.column(0)
            yield values.flatten()[0] if pa.types.is_struct(values.type) else values


def read_rows(
    path: Path, columns: list[str], start: int, stop: int, most: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the first row, rows) of rows start to stop, at most `most` at a time.

    Only the row groups that hold them are read. Raises UserError when the file is damaged.
    """
    with reading_parquet(path) as parquet:
        groups, row = _groups(parquet, start, stop)
        for table in parquet.iter_batches(most, row_groups=groups, columns=columns, use_threads=False):
            low, high = max(start - row, 0), min(stop - row, len(table))
            if low < high:
                yield row + low, table.slice(low, high - low)
            row += len(table)


def _groups(parquet: pq.ParquetFile, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that hold rows start to stop, and the number of their first row."""
    groups: list[int] = []
    first = position = 0
    for index in range(parquet.num_row_groups):
        end = position + parquet.metadata.row_group(index).num_rows
        if end > start and position < stop:
            first = first if groups else position
            groups.append(index)
        position = end
    return groups, first


def chunks(parquet: pq.ParquetFile, path: str) -> Iterator[pq.ColumnChunkMetaData]:
    """Yield the metadata of a column, given by its dotted path, in every row group."""
    for group in range(parquet.num_row_groups):
        columns = parquet.metadata.row_group(group)
        for index in range(columns.num_columns):
            chunk = columns.column(index)
            if chunk.path_in_schema == path:
                yield chunk
