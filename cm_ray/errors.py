"""The exceptions that a user is meant to read."""

from __future__ import annotations

import operator
from typing import Any

DEBUG_VARIABLE = "CM_RAY_DEBUG"
"""Set to 1 by --debug: tracebacks of user errors, and Ray's logs on the terminal."""


class UserError(Exception):
    """Bad input or a bad environment, said in one sentence: what, where, and what to do about it.

    Commands print it without a traceback and exit with code 2; everything else that is raised is a defect.
    """


class SettingError(UserError, ValueError):
    """A setting that cannot be: the path of its field, and the rest of the sentence.

    A class of settings raises it with the name of its own field; `cm_ray.settings.tree` puts the path before
    it, and the command line the dashes.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem.rstrip(".")

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.path} {self.problem}" + ("" if self.problem.endswith("?") else ".")


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
    """Return a hint for a misspelt `name`: the nearest of `known`, else the whole list."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(sorted(known))}." if len(known) <= _MOST_LISTED else "--help lists all."
