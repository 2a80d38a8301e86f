"""Image files and colour profiles made byte by byte, of kinds that Pillow does not write."""

import io
import struct
import zlib

import numpy as np


def encoded(image, form="PNG", **options):
    """Return the bytes of a PIL image's file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind, data):
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, *, key=None, chunks=b""):
    """Return a PNG of samples (h, w, c) of `depth` bits, c from 1 (grey) to 4 (RGBA).

    key: the colour that stands for transparency. chunks: further ones.
    """
    height, width, channels = samples.shape
    if depth < 8:
        bits = np.unpackbits(samples.astype(np.uint8), axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, -1), axis=-1)
    else:
        rows = samples.astype(f">u{depth // 8}").reshape(height, -1).view(np.uint8)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    if key is not None:
        chunks += chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    pixels = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    parts = [chunk(b"IHDR", header), chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(samples, *, order="<", packed=False, planes=False, tags=None):
    """Return an uncompressed TIFF of 16-bit samples (h, w, c).

    packed: 12 bits a sample. planes: one channel after the other. tags: (type, value) of further tags, or of
    others instead, by their number.
    """
    height, width, channels = samples.shape
    laid = samples.transpose(2, 0, 1).reshape(channels, -1) if planes else samples.reshape(1, -1)
    strips = [strip.astype(order + "u2").tobytes() for strip in laid]
    if packed:
        nibbles = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(height, -1, 2), axis=-1)
        strips = [np.packbits(nibbles[..., 4:].reshape(height, -1), axis=-1).tobytes()]
    entries = {
        256: ("L", [width]),
        257: ("L", [height]),
        258: ("H", [12 if packed else 16] * channels),
        259: ("H", [1]),
        262: ("H", [1 if channels == 1 else 2]),
        277: ("H", [channels]),
        278: ("L", [height]),
        284: ("H", [2 if planes else 1]),
        **{number: (kind, [value]) for number, (kind, value) in (tags or {}).items()},
    }
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    heap = b""

    def kept(data):
        nonlocal heap
        place = start + len(heap)
        heap += data + bytes(len(data) % 2)
        return place

    entries[273] = ("L", [kept(strip) for strip in strips])
    entries[279] = ("L", [len(strip) for strip in strips])
    table = b""
    for number, (kind, values) in sorted(entries.items()):
        data = struct.pack(f"{order}{len(values)}{kind}", *values)
        field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "L", kept(data))
        table += struct.pack(order + "HHL", number, {"H": 3, "L": 4}[kind], len(values)) + field
    head = b"II" if order == "<" else b"MM"
    return head + struct.pack(order + "HLH", 42, 8, len(entries)) + table + bytes(4) + heap


D50 = (0.9642, 1.0, 0.8249)
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
"""Red, green and blue of Adobe RGB (1998) as XYZ under D50, in columns."""
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Those of sRGB."""


def _profile(space, kind, tags):
    table, heap = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(heap), len(data))
        heap += data + bytes(-len(data) % 4)
    pcs = b"Lab " if kind == b"prtr" else b"XYZ "
    head = struct.pack(">I4sI4s4s4s", 0, b"\0" * 4, 0x02400000, kind, space, pcs)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(*D50) + bytes(48)
    body = struct.pack(">I", len(tags)) + table + heap
    assert len(head) == 128
    return struct.pack(">I", len(head) + len(body)) + head[4:] + body


def _fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _texts():
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"drawn"[:4] + b"\0" + bytes(78)
    return {
        b"desc": text,
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50),
    }


def colour_profile(primaries, gamma):
    """Return an ICC profile of an RGB space by its primaries (columns of XYZ under D50) and its gamma."""
    points = {name: b"XYZ " + bytes(4) + _fixed(*primaries[:, i]) for i, name in enumerate(_COLUMNS)}
    curves = {name: _curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"RGB ", b"mntr", _texts() | points | curves)


_COLUMNS = (b"rXYZ", b"gXYZ", b"bXYZ")


def grey_profile(gamma):
    """Return an ICC profile of grey with a gamma."""
    return _profile(b"GRAY", b"mntr", _texts() | {b"kTRC": _curve(gamma)})


def ink_profile(lab_of):
    """Return an ICC profile of CMYK.

    lab_of: gives Lab, 0 to 255 each and 128 for a = b = 0, of the 16 mixtures (c, m, y, k) of zeros and ones.
    """
    corners = [lab_of(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    line = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += line * 4 + bytes(np.array(corners, np.uint8).ravel()) + line * 3
    return _profile(b"CMYK", b"prtr", _texts() | {b"A2B0": table, b"A2B1": table})
