"""Image files opened by Pillow: within a limit of pixels, and without a change to the process.

Pillow's own limit is a variable of the process, which other code may rely on, so it is neither used nor
changed here.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence

from PIL import Image, ImageFile

from cm_ray.data.interface.bad_image import BadImageError, TooManyPixelsError
from cm_ray.data.pictures.damage import check_png, open_ended
from cm_ray.errors import UserError
from cm_ray.storage.file_kinds import stand_in

_SIGNATURE_BYTES, _HEAD_BYTES = 16, 1024
_turn = threading.RLock()


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Make Pillow strict and silent, and turn its exceptions, which may be of any class, into BadImageError.

    Warnings and the treatment of truncated files are variables of the process: one thread decodes at a time,
    and both are as before at the end.
    """
    with _turn, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        except (BadImageError, UserError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise TooManyPixelsError("has more pixels than Pillow reads in its format") from error
        except Exception as error:
            raise BadImageError(f"{error or type(error).__name__}".splitlines()[0].rstrip(".")) from error
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def open_file(
    data: bytes, formats: Sequence[str], most_pixels: int, least_side: int = 0
) -> ImageFile.ImageFile:
    """Open an image file's bytes without decoding them; call it within `decoding`.

    formats: Pillow's names of the formats that are allowed. least_side: a JPEG of too many pixels is decoded
    at a half, a quarter or an eighth of its size, if its sides keep that many pixels; 0 does not allow it.
    Raises BadImageError, also when there are more pixels than `most_pixels`.
    """
    image = _identified(data, formats)
    pixels = image.width * image.height
    if pixels > most_pixels and least_side and image.format in ("JPEG", "MPO"):
        _reduce(image, most_pixels, least_side)
    if image.width * image.height > most_pixels:
        raise TooManyPixelsError(f"has {pixels:,} pixels, more than {most_pixels:,}")
    return with_memory(image)


def with_memory(image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    """Allocate the pixels of a TIFF, since Pillow would compare their number with its own limit."""
    if image.format == "TIFF" and image.tile:
        right, bottom = (max(tile.extents[edge] for tile in image.tile if tile.extents) for edge in (2, 3))
        image.im = Image.new(image.mode, (right, bottom)).im
    return image


def _identified(data: bytes, formats: Sequence[str]) -> ImageFile.ImageFile:
    """Return the image that the first of the formats makes of the data, as `Image.open` does."""
    if any(name not in Image.OPEN for name in formats):
        Image.init()
    head = data[:_SIGNATURE_BYTES]
    for name in formats:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(head) is True:
            whole = _undamaged(data, name)
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
                return factory(io.BytesIO(whole), "")
    if not data:
        raise BadImageError("an empty file")
    raise BadImageError(stand_in(data[:_HEAD_BYTES]) or "of another kind, or damaged at its start")


def _undamaged(data: bytes, name: str) -> bytes:
    """Return the data of a format as Pillow is to get it. Raises BadImageError on damage that it ignores."""
    if name == "PNG":
        check_png(data)
    return open_ended(data) if name == "JPEG" else data


def _reduce(image: ImageFile.ImageFile, most_pixels: int, least_side: int) -> None:
    """Have a JPEG decoded at the largest size that has few enough pixels.

    A progressive JPEG is left as it is: its decoder keeps all coefficients in memory, whatever the size.
    """
    if "progressive" in image.info:
        return
    width, height = image.size
    for factor in (2, 4, 8):
        small = width // factor, height // factor
        if min(small) < least_side:
            return
        if small[0] * small[1] <= most_pixels or factor == 8:
            image.draft(None, small)
            return
