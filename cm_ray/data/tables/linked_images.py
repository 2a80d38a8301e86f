"""Image files that a table names by their paths, which are relative to the folder of the table."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cm_ray.data.interface.names import printable
from cm_ray.data.layouts.disk import reading
from cm_ray.errors import UserError

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*:")
"""The beginning of an address, such as hf://, or of a path with a drive, such as C:."""


def linked_path(table: Path, path: str, row: str) -> str:
    """Return the path of an image, relative to the folder of the table, without `.` and `..`.

    row: name of the row in messages. Raises UserError on a path that leads out of the folder, since a table
    of someone else must not name any file of this machine, and when there is no such file.
    """
    normal = os.path.normpath(path)
    how = "an address" if _ADDRESS.match(path) else "an absolute path" if os.path.isabs(path) else ""
    if normal == ".." or normal.startswith("../"):
        how = "a path out of the folder of the table"
    if how:
        raise UserError(
            f"{row} names its image by {how} ({printable(path)}); write paths relative to the folder of the "
            "table, or the bytes of the images into it."
        )
    if "\0" in path or not os.path.isfile(table.parent / normal):
        raise UserError(
            f"{row} names the image {printable(path)!r}, which is not in {printable(str(table.parent))}; put "
            "it there, or write the bytes of the images into the table."
        )
    return normal


def read_linked(table: Path, path: str, row: str) -> bytes:
    """Return the bytes of an image that a table names. Raises UserError as `linked_path`."""
    file = table.parent / linked_path(table, path, row)
    with reading(file):
        return file.read_bytes()
