"""Changes of a file's bytes, drawn by hypothesis."""

from __future__ import annotations

import io
import struct
import zipfile

from hypothesis import strategies as st

NUMBERS = (
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    10**12,
    2**63 - 1,
)
"""Values that headers are given: sizes and counts of much more than there is."""
_HEAD = 600
"""The number of bytes at either end where most of a format's structure lies."""
_FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")


@st.composite
def places(draw, length):
    """Draw a place in a file of this length: often in its head, sometimes in its tail."""
    where = draw(st.integers(0, 3))
    if where <= 1:
        return draw(st.integers(0, min(length, _HEAD)))
    if where == 2:
        return max(0, length - draw(st.integers(0, min(length, _HEAD))))
    return draw(st.integers(0, length))


@st.composite
def mutated(draw, data, most=4):
    """Draw a changed copy of bytes."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        place = draw(places(len(changed)))
        kind = draw(st.integers(0, 5))
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == 1:
            changed[place : place + 1] = draw(st.binary(max_size=8))
        elif kind == 2:
            del changed[place : place + draw(st.integers(1, 40))]
        elif kind == 3:
            form = draw(st.sampled_from(_FORMATS))
            size = struct.calcsize(form)
            number = draw(st.sampled_from(NUMBERS)) & ((1 << 8 * size) - 1)
            changed[place : place + size] = struct.pack(form, number)
        elif kind == 4:
            other = draw(places(len(changed)))
            changed[place:place] = changed[other : other + draw(st.integers(1, 64))]
        else:
            del changed[place:]
    return bytes(changed)


@st.composite
def mutated_archive(draw, data):
    """Draw a zip archive in which one member has changed, with its checksum and its sizes made right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
        stored = {info.filename: info.compress_type for info in archive.infolist()}
    chosen = draw(st.sampled_from(sorted(members)))
    members[chosen] = draw(mutated(members[chosen]))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content, compress_type=stored[name])
    return stream.getvalue()


JSON = st.recursive(
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
"""Values of JSON."""


@st.composite
def mutated_json(draw, value):
    """Draw a changed copy of a JSON value: another value somewhere, or something missing or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        kind = draw(st.integers(0, 8))
        if kind == 0:
            return {name: inner for name, inner in value.items() if name != key}
        if kind == 1:
            return value | {draw(st.text(max_size=6)): draw(JSON)}
        return value | {key: draw(mutated_json(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(mutated_json(value[place])), *value[place + 1 :]]
    return draw(JSON)
