"""The exceptions that a user is meant to read, and the text in them: names of settings, foreign words."""

from __future__ import annotations

import contextlib
import logging
import operator
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import Any

DEBUG_VARIABLE = "CM_RAY_DEBUG"
"""Set to 1 by --debug: tracebacks of user errors, and Ray's logs on the terminal."""


class UserError(Exception):
    """Bad input or a bad environment, said in one sentence: what, where, and what to do about it.

    Commands print it without a traceback and exit with code 2; everything else that is raised is a defect.
    The sentence is one line without control characters, whatever it quotes; `setting` names settings in it.
    """

    @property
    def marked(self) -> str:
        """The sentence with marks at its settings, to be raised again in another process."""
        return super().__str__()

    def __str__(self) -> str:
        """Return the sentence, for whoever reads it: see `spoken`."""
        return plain(spoken(self.marked))


class SettingError(UserError, ValueError):
    """A setting that cannot be: the path of its field, and the rest of the sentence.

    A class of settings raises it with the name of its own field; `cm_ray.settings.tree` puts the path before
    it, and a command that has the option its dashes.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem.rstrip(".")

    @property
    def marked(self) -> str:
        """The sentence, which begins with the path of the setting."""
        return f"{setting(self.path)} {self.problem}" + ("" if self.problem.endswith("?") else ".")


def require(condition: bool, field: str, problem: str) -> None:
    """Raise SettingError unless a condition on a field holds."""
    if not condition:
        raise SettingError(field, problem)


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Return an integer, also of NumPy, as int. Raises UserError on other values and on lower ones."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be an integer, not {value!r}.") from None
    if least is not None and number < least:
        raise UserError(f"{name} must be at least {least}, not {number}.")
    return number


_MOST_LISTED = 30


def closest(name: str, known: list[str]) -> str:
    """Return a hint for a misspelt `name`: the nearest of `known`, else the list, which may be shortened."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    names = _outlined(name, known)
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"known are {', '.join(names[:_MOST_LISTED])}{more}."


def _outlined(path: str, known: list[str]) -> list[str]:
    """Return what to show of known names beside an unknown one: of many dotted paths the group or groups.

    Those in the group of the unknown path, if there is this group, else the first parts of all: ``data.…``.
    """
    group = path.rpartition(".")[0] + "."
    if siblings := [each for each in known if each.startswith(group)]:
        return sorted(siblings)
    if len(known) <= _MOST_LISTED:
        return sorted(known)
    groups = {each.partition(".")[0] for each in known if "." in each}
    return sorted({each for each in known if "." not in each} - groups | {f"{each}.…" for each in groups})


_BEGIN, _NEXT, _END = "\ue000", "\ue001", "\ue002"
"""Characters around a marked setting, from Unicode's private use area, which no message contains."""
_MARK = re.compile(f"{_BEGIN}([^{_END}]*){_END}")
_Options = Callable[[], Collection[str]]
_options: _Options | None = None
"""The settings that are options of the running command, by their paths; None when no command runs."""


def setting(*names: str, python: str = "", otherwise: str = "") -> str:
    """Return a mark for a setting in a message: a command shows its option, and Python the argument.

    ``choose another {setting("run_dir", python="out")}`` is shown as "choose another --run-dir" by commands
    that have this option. names: paths of the setting; a command shows the first that it has an option for.
    python: the argument's name in Python, by default the first path. otherwise: what a command without the
    option shows, by default the same as Python.
    """
    python = python or names[0]
    return _BEGIN + _NEXT.join([python, otherwise or python, *names]) + _END


@contextlib.contextmanager
def as_options(options: _Options) -> Iterator[None]:
    """Show settings in messages as options of a command, in this process, until the block ends.

    options: returns the paths of the settings that the command has options for.
    """
    global _options
    before, _options = _options, options
    try:
        yield
    finally:
        _options = before


_ONE_SLASH = re.compile(r"\b(s3|gs|az|https?):/(?=[^/])")
"""The beginning of an address in a path."""
_copies: dict[str, str] = {}
"""Addresses by the local folders that are this process's copies of what is there."""


def copy_of(folder: str, address: str) -> None:
    """Show paths in a local folder as addresses in messages: the folder is a copy of what is there."""
    _copies[folder] = address


def spoken(text: str) -> str:
    """Return a message with settings as its reader names them, and addresses for the paths of copies.

    See `setting` and `copy_of`.
    """
    for folder, address in _copies.items():
        text = text.replace(folder, address)
    text = _ONE_SLASH.sub(r"\1://", text)
    return _MARK.sub(lambda mark: _shown(*mark[1].split(_NEXT)), text)


def _shown(python: str, otherwise: str, *names: str) -> str:
    if _options is None:
        return python
    known = _options()
    return next(("--" + name.replace("_", "-") for name in names if name in known), otherwise)


_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]")
"""Sequences by which a text would colour the terminal, move its cursor or set its title."""
_BLANKS = {"Cc", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
"""Invisible characters that words of some languages need."""


def plain(text: str) -> str:
    """Return a text as one line without control characters, so that it can do nothing to a terminal.

    Escape sequences are removed, line ends and other control characters become a space; characters that turn
    the direction of the text, and bytes of file names that are not UTF-8, are shown by their numbers.
    """
    line = "".join(map(_plain_character, _ESCAPES.sub("", text)))
    return re.sub("\n+", " ", line.strip("\n"))


def _plain_character(character: str) -> str:
    if character.isprintable():
        return character
    kind = unicodedata.category(character)
    if kind in _BLANKS:
        return "\n"
    invisible = kind in ("Cf", "Cs") and character not in _JOINERS
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8, as os.fsdecode has it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode-escape").decode() if invisible else character


@lru_cache(maxsize=1024)
def tell_once(text: str) -> None:
    """Tell the user what was understood or left out, on standard error, once in a process.

    It is a warning of the logger ``cm_ray``, so that a program that uses cm_ray can turn it off.
    """
    logging.getLogger("cm_ray").warning("%s", plain(spoken(text)))
