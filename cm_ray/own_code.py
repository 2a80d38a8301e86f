"""Code of one's own, ``package.module:name``: it is imported only where the command or the program names it.

Settings can name a network or a feature extractor of one's own, and files of runs and models keep settings.
Whoever gives away such files must not choose what is imported where they are read. So a process has a list of
the names that its command, or its program, has named; `found` is the only function that imports, and it
refuses every other name. Processes that are started on the cluster get the list of the process that starts
them (`carried`, `take`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from cm_ray.errors import UserError, setting

Code = str | Callable[..., Any]
"""Code of one's own: ``package.module:name``, or the class or function itself."""
CODE: Mapping[str, Any] = {"code": True}
"""Metadata of a field of settings that can name code of one's own."""
_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_named: dict[str, Any] = {}
"""The names, with the class or function itself where it was given, else None."""


@dataclass(frozen=True, kw_only=True)
class CodeSettings:
    """Settings of the commands that read runs or models."""

    own_code: tuple[str, ...] = ()
    """Networks and extractors, package.module:name, that may be imported if what is read names them; all
    others are refused."""


class ReadName(str):
    """A name of code that stands in a file, and is therefore not named by the program that read it."""

    file: str
    """The file, for messages."""

    def __new__(cls, name: str, file: str) -> ReadName:
        """Return the name with its file."""
        made = super().__new__(cls, name)
        made.file = file
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        """Return the arguments of a copy, in this process or another."""
        return str(self), self.file


def read_name(value: Any, file: str) -> Any:
    """Return a value of a file; a text that could name code becomes a `ReadName`."""
    return ReadName(value, file) if isinstance(value, str) and is_name(value) else value


class UnnamedCode(UserError):
    """Code that a file names, and neither the command nor the program."""


def allow(code: Code | Iterable[Code]) -> None:
    """Name code, from now on in this process. Raises UserError on a name of another form."""
    for each in [code] if isinstance(code, str) or callable(code) else code:
        name = each if isinstance(each, str) else name_of(each)
        if not is_name(name):
            raise UserError(f"{name[:200]!r} is not the name of code: give package.module:name.")
        _named[str(name)] = None if isinstance(each, str) else each


def is_name(text: str) -> bool:
    """Return True for a text of the form package.module:name."""
    return bool(_FORM.fullmatch(text))


def name_of(code: Callable[..., Any]) -> str:
    """Return the name by which settings call a class or a function."""
    module, name = getattr(code, "__module__", None), getattr(code, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise UserError(f"Code is given as package.module:name, a class or a function, not as {code!r}.")
    return f"{module}:{name}"


def allow_given(settings: Any) -> None:
    """Name the code that given settings name, and check the code that they were read with.

    Raises UnnamedCode where a file alone names code.
    """
    for name in _names_in(settings):
        if isinstance(name, ReadName):
            check(name)
        else:
            allow(name)


def check(name: str) -> None:
    """Raise UnnamedCode unless this process's command or program has named the code."""
    if name not in _named:
        place = name.file if isinstance(name, ReadName) else "The settings"
        verb = "names" if isinstance(name, ReadName) else "name"
        raise UnnamedCode(
            f"{place} {verb} code that is not cm_ray's, {name[:200]}, and it was not imported: give "
            f"{setting('own_code')} {name[:200]} if you trust it."
        )


def found(name: str) -> Any:
    """Import the class or function that a name stands for.

    Raises UnnamedCode as `check` does; ImportError, AttributeError or ValueError when there is none.
    """
    check(name)
    if (given := _named[name]) is not None:
        return given
    module, _, attribute = name.partition(":")
    return reduce(getattr, attribute.split("."), importlib.import_module(module))


def carried() -> dict[str, Any]:
    """Return what this process has named, for a process that it starts."""
    return dict(_named)


def take(names: Mapping[str, Any]) -> None:
    """Name what the process has named that started this one."""
    _named.update(names)


@contextlib.contextmanager
def forgotten_afterwards() -> Iterator[None]:
    """Forget, at the end of the block, what was named in it: a command names code for itself alone."""
    before = carried()
    try:
        yield
    finally:
        _named.clear()
        _named.update(before)


def _names_in(settings: Any) -> Iterator[str]:
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _names_in(value)
        elif field.metadata.get("code") and ":" in value:
            yield value
