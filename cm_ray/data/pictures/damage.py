"""Damage in PNG and JPEG files that Pillow decodes without an error, to images that are grey in part."""

from __future__ import annotations

import re
import struct
import zlib

from cm_ray.data.interface.bad_image import BadImageError

_CHECKED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""The chunks of a PNG that decide its pixels."""
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_LONE = (0x01, *range(0xD0, 0xD9))
"""Markers of a JPEG without a segment: restarts and the like."""
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_SCAN, _END = 0xDA, 0xD9
_PADDING = bytes(16)
"""Number of bytes that a decoder may read ahead of the last pixel."""


def check_png(data: bytes) -> None:
    """Compare the checksums of a PNG's chunks.

    Raises BadImageError when one is wrong or the end is missing.
    """
    view, place = memoryview(data), 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            break
        if kind in _CHECKED and zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            raise BadImageError(f"its {kind.decode()} is damaged: the checksum is another")
        if kind == b"IEND":
            return
        place = end
    raise BadImageError("image file is truncated")


def open_ended(data: bytes) -> bytes:
    """Return a JPEG without the marker of its end, so that Pillow notices when pixels are missing before it.

    libjpeg fills what is missing before the marker with grey, and waits for more bytes without it. A
    progressive JPEG is returned as it is, if it has all of its scans. Raises BadImageError when the marker or
    a scan is missing.
    """
    place = 2
    missing: dict[int, set[int]] | None = None  # of a progressive file: by component, coefficients
    while found := _MARKER.search(data, place):
        place, code = found.end(), data[found.end() - 1]
        if code == _END:
            if missing is None:
                return data[: found.start()] + _PADDING
            if any(missing.values()):
                break
            return data
        if code in _LONE:
            continue
        segment = data[place + 2 : place + int.from_bytes(data[place : place + 2])]
        place += 2 + len(segment)
        if code in _PROGRESSIVE:
            missing = {component: set(range(64)) for component in segment[6::3]}
        if code == _SCAN:
            _scan(segment, missing or {})
            ended = _AFTER_SCAN.search(data, place)
            place = ended.start() if ended else len(data)
    raise BadImageError("image file is truncated")


def _scan(header: bytes, missing: dict[int, set[int]]) -> None:
    """Take the coefficients that a scan brings to their last bit from those that are missing."""
    *_, first, last, bits = bytes(3) + header
    if bits & 15:
        return
    for component in header[1:-3:2]:
        missing.get(component, set()).difference_update(range(first, last + 1))
