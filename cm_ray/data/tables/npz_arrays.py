"""Arrays in an .npz file: their headers and their rows, without unpickling."""

from __future__ import annotations

import contextlib
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cm_ray.data.interface.names import printable
from cm_ray.errors import UserError
from cm_ray.storage.file_kinds import file_stand_in

_NAMES_AT = 26  # offset in a zip's local header of two lengths: of the name and of the extra field
_LOCAL_HEADER = 30
_MOST_BYTES = (1 << 63) - 1  # of an array; its rows then have a length in Python, too
_MOST_RATIO = 1100  # no compression of a zip file makes less of anything


@dataclass(frozen=True, slots=True)
class NpzArray:
    """Header of one array in the file."""

    path: Path
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int
    """Offset of its values in the member, in bytes."""

    def __str__(self) -> str:
        return f"{self.name} of {printable(str(self.path))}"

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    @property
    def name(self) -> str:
        """Name of the array."""
        return printable(self.member.filename.removesuffix(".npy"))

    @property
    def row_bytes(self) -> int:
        """Bytes of one image or label."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, EOFError, ValueError)
"""The exceptions of zipfile and NumPy on damaged bytes; a header is parsed as Python."""


@contextlib.contextmanager
def reading_npz(path: Path) -> Iterator[None]:
    """Turn the exceptions of zipfile, zlib and NumPy on a damaged or missing file into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Could not read {path} ({error.strerror or error}); every machine must be able to read it."
        ) from error
    except _DAMAGE as error:
        raise damaged(path, str(error)) from error
    except RuntimeError as error:  # an odd compression, or a password
        raise UserError(f"{path} cannot be read ({error}); write it with numpy.savez.") from error


def damaged(path: Path, reason: str) -> UserError:
    """Return the error of a file that is damaged or cut off."""
    if found := file_stand_in(path):
        return UserError(f"{path} is {found}.")
    first = (reason.splitlines() or ["it ends too early"])[0].rstrip(".")
    return UserError(f"{path} is not a whole .npz file ({first}); fetch or write it again.")


def heads_of(path: Path) -> dict[str, NpzArray]:
    """Return the headers of all arrays, by name. Raises UserError when the file is damaged or missing."""
    found = {}
    with reading_npz(path), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as stream:
                shape, fortran, dtype = _header(stream)
                _check_shape(shape, dtype)
                array = NpzArray(path, member, shape, dtype, fortran, stream.tell())
            found[member.filename.removesuffix(".npy")] = array
    return found


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and type of an array; NumPy's advice to save the file anew is not shown."""
    first = npy.read_magic(stream) == (1, 0)  # later versions have a longer length field
    read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of files that Python 2 wrote
        shape, fortran, dtype = read(stream)
    return shape, fortran, dtype


def _check_shape(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ValueError on a shape that no array has: NumPy takes any integers of a header."""
    if min(shape, default=0) < 0 or math.prod(shape) * max(dtype.itemsize, 1) > _MOST_BYTES:
        raise ValueError("an array has an impossible shape")


@contextlib.contextmanager
def _at_row(array: NpzArray, row: int) -> Iterator[IO[bytes]]:
    """Open the values of an array at a row. In a deflated array, everything before the row is inflated."""
    offset = array.start + row * array.row_bytes
    if array.member.compress_type != zipfile.ZIP_STORED:
        with zipfile.ZipFile(array.path) as archive, archive.open(array.member) as stream:
            stream.seek(offset)
            yield stream
        return
    with array.path.open("rb") as file:  # zipfile would read what lies before, too
        file.seek(array.member.header_offset + _NAMES_AT)
        between = sum(struct.unpack("<HH", file.read(4)))
        file.seek(array.member.header_offset + _LOCAL_HEADER + between + offset)
        yield file


def rows_of(array: NpzArray, start: int, stop: int, most: int) -> Iterator[NDArray[Any]]:
    """Yield rows start to stop, `most` at a time. Raises UserError when the file is damaged or missing."""
    with reading_npz(array.path), _at_row(array, start) as stream:
        for row in range(start, stop, most):
            count = min(stop - row, most)
            data = stream.read(count * array.row_bytes)
            if len(data) < count * array.row_bytes:
                raise EOFError
            yield np.frombuffer(data, array.dtype).reshape(count, *array.shape[1:])


def check_array(array: NpzArray) -> None:
    """Raise UserError when an array holds pickled objects, or when the file is too short for its shape."""
    if array.dtype.hasobject:
        raise UserError(
            f"{array} holds pickled Python objects, which are not read; save a plain array of numbers."
        )
    size = array.start + len(array) * array.row_bytes
    with reading_npz(array.path):
        stored = array.path.stat().st_size
    most = stored if array.member.compress_type == zipfile.ZIP_STORED else stored * _MOST_RATIO
    if size > min(array.member.file_size, most):  # what the headers say is not believed
        raise damaged(array.path, f"{array.member.filename} ends too early")
    if array.fortran and len(array.shape) > 1:  # a row's values are scattered over the whole file
        raise UserError(f"{array} is in Fortran order; save its numpy.ascontiguousarray.")


def whole(array: NpzArray) -> NDArray[Any]:
    """Return all values of a checked array."""
    pieces = list(rows_of(array, 0, len(array), max(1, len(array))))
    return pieces[0] if pieces else np.empty(array.shape, array.dtype)
