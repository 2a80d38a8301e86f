"""Images in an .npz file, as OpenAI's tools and `cm_ray.drawing.pictures` write it; without unpickling."""

from __future__ import annotations

import contextlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cm_ray.data.identity import digest_of_files
from cm_ray.data.images import BATCH_ROWS, pixel_batches
from cm_ray.data.source import Batch, Labels, LeftOut, Progress, ReadOptions
from cm_ray.errors import UserError

IMAGES = "arr_0"
LABELS = ("arr_1", "labels", "label")
_NAMES_AT = 26  # offset in a zip's local header of two lengths: of the name and of the extra field
_LOCAL_HEADER = 30


@dataclass(frozen=True, slots=True)
class _Array:
    """Header of one array in the file."""

    path: Path
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int
    """Offset of its values in the member, in bytes."""

    def __str__(self) -> str:
        return f"{self.member.filename.removesuffix('.npy')} of {self.path}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one image or label."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, EOFError, ValueError)
"""What zipfile and NumPy raise on damaged bytes; a header is parsed as Python."""


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the exceptions of zipfile, zlib and NumPy on a damaged or missing file into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Could not read {path} ({error.strerror or error}); every machine must be able to read it."
        ) from error
    except _DAMAGE as error:
        raise _damaged(path, str(error)) from error
    except RuntimeError as error:  # an odd compression, or a password
        raise UserError(f"{path} cannot be read ({error}); write it with numpy.savez.") from error


def _damaged(path: Path, reason: str) -> UserError:
    first = (reason.splitlines() or ["it ends too early"])[0].rstrip(".")
    return UserError(f"{path} is not a whole .npz file ({first}); fetch or write it again.")


def _heads(path: Path) -> dict[str, _Array]:
    """Read the headers of all arrays, by name."""
    found = {}
    with _reading(path), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as stream:
                first = npy.read_magic(stream) == (1, 0)  # later versions have a longer length field
                read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
                shape, fortran, dtype = read(stream)
                array = _Array(path, member, shape, dtype, fortran, stream.tell())
            found[member.filename.removesuffix(".npy")] = array
    return found


def _contents(path: Path) -> tuple[_Array, _Array | None]:
    """Return the images and, if there are any, the labels. Raises UserError when they do not fit."""
    heads = _heads(path)
    like_images = [name for name, head in heads.items() if head.dtype == np.uint8 and len(head.shape) == 4]
    if IMAGES not in heads and len(like_images) != 1:
        raise UserError(
            f"{path} has no array {IMAGES} (its arrays: {', '.join(heads) or 'none'}); "
            "save the images as the first one with numpy.savez."
        )
    images = heads[IMAGES if IMAGES in heads else like_images[0]]
    labels = next((heads[name] for name in LABELS if name in heads), None)
    _check_images(images)
    if labels is not None:
        _check_labels(labels, images.shape[0])
    for array in (images, labels):
        if array is not None and array.member.file_size < array.start + array.shape[0] * array.row_bytes:
            raise _damaged(path, f"{array.member.filename} ends too early")
    return images, labels


def _check_images(images: _Array) -> None:
    _check_plain(images)
    if images.dtype != np.uint8:
        raise UserError(f"{images} is {images.dtype}, not uint8; save its pixels as uint8 in [0, 255].")
    shape = images.shape
    if len(shape) != 4 or shape[3] not in (1, 3):
        hint = "save it as (n, h, w, c) with c 1 or 3"
        if len(shape) == 4 and shape[1] in (1, 3):
            hint = "it looks like (n, c, h, w), so save its transpose(0, 2, 3, 1)"
        elif len(shape) == 3:
            hint = "if its images are grey, save it with a last axis: images[..., None]"
        raise UserError(f"{images} has the shape {shape}, not that of images; {hint}.")
    if min(shape) < 1:
        raise UserError(f"{images} holds no images: its shape is {shape}; give another file.")
    if images.fortran:  # a row's values are scattered over the whole file
        raise UserError(f"{images} is in Fortran order; save its numpy.ascontiguousarray.")


def _check_labels(labels: _Array, count: int) -> None:
    _check_plain(labels)
    if labels.dtype.kind not in "iu":
        raise UserError(f"{labels} is {labels.dtype}, not integers; number the classes.")
    if labels.shape != (count,):
        raise UserError(f"{labels} has the shape {labels.shape}, not a label for each of the {count} images.")


def _check_plain(array: _Array) -> None:
    if array.dtype.hasobject:
        raise UserError(
            f"{array} holds pickled Python objects, which are not read; save a plain array of numbers."
        )


@contextlib.contextmanager
def _at_row(array: _Array, row: int) -> Iterator[IO[bytes]]:
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


def _rows(array: _Array, start: int, stop: int, most: int) -> Iterator[NDArray[Any]]:
    """Yield rows start to stop, `most` at a time."""
    with _reading(array.path), _at_row(array, start) as stream:
        for row in range(start, stop, most):
            count = min(stop - row, most)
            data = stream.read(count * array.row_bytes)
            if len(data) < count * array.row_bytes:
                raise EOFError
            yield np.frombuffer(data, array.dtype).reshape(count, *array.shape[1:])


@dataclass(frozen=True, slots=True)
class NpzPart:
    """Images `start` to `stop` of a file."""

    file: str
    start: int
    stop: int

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield (n, h, w, c) images, reading only these rows, 1,024 at a time; see `Part.read`."""
        path = Path(self.file)
        images, labels = _contents(path)
        if images.shape[0] < self.stop:
            raise UserError(f"{path} has become shorter since it was opened; repeat the command.")
        numbers = self._labels(labels)
        row = self.start
        for pixels in _rows(images, self.start, self.stop, BATCH_ROWS):
            those = numbers[row - self.start :][: len(pixels)]
            yield from pixel_batches(pixels, those, f"{path} image {row}", options)
            row += len(pixels)

    def _labels(self, labels: _Array | None) -> Labels:
        count = self.stop - self.start
        if labels is None:
            return np.full(count, -1, np.int64)
        return next(_rows(labels, self.start, self.stop, count)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class NpzSource:
    """An .npz with the images ``arr_0``, uint8 (n, h, w, c), and optional labels ``arr_1``, integers (n,).

    Without ``arr_0``, the only uint8 array with four axes holds the images. A part of a file that is not
    compressed (numpy.savez) reads only its own rows; a part of a compressed file inflates all rows before
    its own, too.
    """

    file: Path
    name: str
    count: int
    """Number of images in the file."""
    class_names: tuple[str, ...] = ()
    """Always empty: the file holds numbers of classes, no names."""
    split: str = ""
    """Name of the split that the file is, if its data set has splits."""
    left_out: tuple[LeftOut, ...] = ()
    """What lies beside the file and is not read."""

    @classmethod
    def open(cls, path: Path, name: str) -> NpzSource:
        """Read the arrays' headers. Raises UserError on a damaged file and on arrays that do not fit."""
        images, _ = _contents(path)
        return cls(path.resolve(), name, images.shape[0])

    @property
    def layout(self) -> str:
        """Phrase for the form of the data."""
        return "an .npz file"

    def identity(self, progress: Progress | None = None) -> str:
        """Return the digest of the file's name and content."""
        return digest_of_files(self.file.parent, [self.file.name], progress)

    def parts(self, rows_per_part: int) -> list[NpzPart]:
        """Split into runs of rows."""
        return [
            NpzPart(str(self.file), start, min(self.count, start + rows_per_part))
            for start in range(0, self.count, rows_per_part)
        ]
