"""Names of files and folders: as text that can be printed, as names of classes, and in their order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_INTEGER = re.compile(r"-?[0-9]{1,255}")


def printable(name: str) -> str:
    """Return a name of a file as text that can be printed and encoded.

    Bytes that are not UTF-8, which `os.fsdecode` turns into surrogates, and control characters are written
    as escapes: ``caf\\xe9.png``.
    """
    return _UNPRINTABLE.sub(lambda match: _escaped(match[0]), name)


def _escaped(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()


def class_name(folder: str) -> str:
    """Return the name of the class whose images are in a folder.

    It is the printable name in Unicode's composed form: a Mac decomposes the letters of names of files.
    """
    return printable(unicodedata.normalize("NFC", folder))


def in_class_order(names: Iterable[str]) -> list[str]:
    """Return names sorted as integers when all of them are integers ("007" is 7), else as text."""
    names = list(names)
    if all(_INTEGER.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
