"""Formats of image files that are read: those that Pillow decodes by itself, without another program."""

from __future__ import annotations

import re

from PIL import Image

READABLE_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "AVIF",
    "GIF",
    "BMP",
    "TIFF",
    "JPEG2000",
    "PPM",
    "QOI",
    "DDS",
    "SGI",
    "PCX",
    "TGA",
)
"""Names that Pillow gives to the formats, in the order in which they are tried.

EPS is not among them, since Pillow starts Ghostscript for it, nor are formats that Pillow only recognises
(WMF, GRIB, HDF5) or that hold several images under one size (ICO, ICNS)."""

READABLE_ENDINGS = (
    *(".png", ".apng"),
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".qoi", ".dds", ".sgi", ".rgb", ".rgba", ".bw", ".pcx", ".tga", ".icb", ".vda", ".vst"),
)
"""Endings of files of these formats, in small letters."""

SIGNATURE_BYTES = 16
"""The number of bytes at the start of a file that `format_of` needs."""

_NETPBM = re.compile(rb"P[1-6fF]\s")


def format_of(head: bytes) -> str:
    """Return the readable format whose signature a file begins with; an empty text for other files.

    head: the first `SIGNATURE_BYTES` bytes. A file of a known signature may still be damaged. TGA has no
    signature and is known by its ending alone.
    """
    Image.init()
    for name in READABLE_FORMATS:
        accept = Image.OPEN[name][1]
        if accept and accept(head) and (name != "PPM" or _NETPBM.match(head)):
            return name
    return ""
