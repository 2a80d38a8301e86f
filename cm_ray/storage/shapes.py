"""Shapes of JSON values: what a file must hold; it is refused in a sentence where it holds other things.

A shape is a type (``str``, ``int``, ``float``, ``bool``, or ``dict`` and ``list`` of anything), None, a tuple
of alternatives, ``[shape]`` for a list, ``{str: shape}`` for entries of any names, or the names of all
entries with their shapes, where a name that ends in ``?`` may be missing. Booleans are no numbers, an integer
is a ``float``, too, and numbers are finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

Shape = Any
"""See above."""
ANYTHING: Shape = object
"""The shape of all values."""
MOST_DEPTH = 50
"""The deepest nesting of a value that is read."""
_MOST_NUMBER = 2**63
"""Bound of integers: no count, size, seed or time in a file is larger."""


def misfit(value: Any, shape: Shape, place: str = "") -> str:
    """Return what is wrong with a value, as the end of a sentence; empty when it has the shape.

    place: the entry that the value is, for the sentence.
    """
    if shape is ANYTHING:
        return ""
    if isinstance(shape, tuple):
        found = [misfit(value, each, place) for each in shape]
        return "" if "" in found else found[0]
    if isinstance(shape, list):
        return _list_misfit(value, shape[0], place)
    if isinstance(shape, dict):
        return _entries_misfit(value, shape, place)
    fits = _is_number(value, shape) if shape in (int, float) else value is None if shape is None else None
    if fits is None:
        fits = type(value) is shape
    return "" if fits else f"{place or 'it'} must be {_word(shape)}, not {short(value)}"


def _is_number(value: Any, shape: Shape) -> bool:
    if type(value) is int:
        return abs(value) <= _MOST_NUMBER
    return shape is float and type(value) is float and math.isfinite(value)


def _list_misfit(value: Any, shape: Shape, place: str) -> str:
    if type(value) is not list:
        return f"{place or 'it'} must be a list, not {short(value)}"
    found = (misfit(each, shape, f"{place or 'it'}[{index}]") for index, each in enumerate(value))
    return next(filter(None, found), "")


def _entries_misfit(value: Any, shape: dict[Any, Shape], place: str) -> str:
    if type(value) is not dict:
        return f"{place or 'it'} must be a group of entries, not {short(value)}"
    return next(filter(None, _entry_misfits(value, shape, place)), "")


def _entry_misfits(value: dict[str, Any], shape: dict[Any, Shape], place: str) -> Iterator[str]:
    prefix = f"{place}." if place else ""
    shapes = {str(name).removesuffix("?"): each for name, each in shape.items() if name is not str}
    for name, each in value.items():
        if name not in shapes and str not in shape:
            yield f"{prefix}{name[:80]} is unknown there"
        else:
            yield misfit(each, shapes.get(name, shape.get(str)), prefix + name[:80])
    for name in shape:
        if name is not str and not name.endswith("?") and name not in value:
            yield f"{prefix}{name} is missing"


def _word(shape: Shape) -> str:
    words = {str: "a text", int: "an integer", float: "a number", bool: "true or false", list: "a list"}
    return "null" if shape is None else words.get(shape, "a group of entries")


def short(value: Any) -> str:
    """Return a value of JSON in a few characters."""
    if isinstance(value, dict | list) and value:
        return "{…}" if isinstance(value, dict) else "[…]"
    text = repr(value[:60] if isinstance(value, str) else value if not _is_long(value) else "a huge number")
    return text[:80]


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > _MOST_NUMBER


def is_deep(value: Any, most: int = MOST_DEPTH) -> bool:
    """Return True when lists and groups in a value are nested deeper than `most`."""
    level = [value]
    for _ in range(most + 1):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return False
    return True


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
