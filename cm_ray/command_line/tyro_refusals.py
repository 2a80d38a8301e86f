"""Refusals of tyro as one sentence: it prints a box of text with rules in it, and exits."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence

from cm_ray.errors import UserError, closest

_MARGIN, _BELOW = 2, 8 * " "
"""Blanks at the left side of a box; blanks before the help of an argument, which is below its name."""
_KINDS = {"INT": "an integer", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}


@contextlib.contextmanager
def one_sentence(arguments: Sequence[str]) -> Iterator[None]:
    """Raise UserError where tyro refuses these arguments in the block; leave --help to tyro."""
    if {"--help", "-h"} & set(arguments):
        yield
        return
    said = io.StringIO()
    try:
        with _wide_terminal(), contextlib.redirect_stderr(said):
            yield
    except SystemExit as ended:
        if not ended.code:
            raise
        raise UserError(_sentence(said.getvalue())) from None
    sys.stderr.write(said.getvalue())


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """Make the terminal so wide that no line of a box is broken."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _sentence(box: str) -> str:
    first, *others = _sections(box)
    text = " ".join(first)
    if first[0].startswith("Missing from"):
        mistyped = [lines[1].strip() for lines in others if lines[0].startswith("Unrecognized options")]
        return _mistyped(mistyped[0], first[1:]) if mistyped else _missing(first[1:])
    if match := re.fullmatch(r"Missing value for argument '(.+?)'\..*", text):
        return f"{match[1]} needs a value."
    if match := re.fullmatch(
        r"invalid choice '(.*)' for argument '(.+?)'\. Expected one of \((.*?),?\)\.", text
    ):
        return f"{match[2]} cannot be {match[1]!r}: give one of {match[3].replace(chr(39), '')}."
    if match := re.fullmatch(r"Unrecognized options: (.*)", text):
        return _unrecognized(match[1], others)
    if match := re.fullmatch(r"Error parsing (\S+): (.*)", text):
        return _bad_value(match[1], match[2], others)
    return text


def _mistyped(option: str, missing: Sequence[str]) -> str:
    """Return the sentence about an unknown option beside missing arguments, one of which may be meant."""
    names = [line.split()[0] for line in missing if line.strip().startswith("--")]
    hint = closest(option, names) if names else ""
    return _unknown(option, hint if hint.startswith("did") else "")


def _missing(lines: Sequence[str]) -> str:
    """Return the sentence about arguments that are missing: lines with their names, and their help below."""
    names = [line.strip() for line in lines if not line.startswith(_BELOW)]
    if len(names) > 1:
        return f"{' and '.join(names)} are missing: give them."
    help_text = " ".join(line.strip() for line in lines if line.startswith(_BELOW))
    return f"{names[0]} is missing: {help_text.removesuffix('(required)').strip().rstrip('.')}."


def _unrecognized(options: str, sections: Sequence[Sequence[str]]) -> str:
    meant = [lines[1].split()[0] for lines in sections if lines[0].startswith("Perhaps") and len(lines) > 1]
    first = options.partition(",")[0]
    return _unknown(first, f"did you mean {meant[0]}?" if meant else "")


def _unknown(word: str, hint: str) -> str:
    """Return the sentence about an option that there is not, or about a word that stands where none does."""
    if hint or word.startswith("-"):
        return f"{word} is not an option here: {hint or '--help shows those that are.'}"
    return f"{word} is a word too many: leave it out, or write its option before it (see --help)."


def _bad_value(name: str, problem: str, sections: Sequence[Sequence[str]]) -> str:
    """Return the sentence about a value that is of another type than its option."""
    usage = next((line for lines in sections for line in lines if line.strip().startswith(name)), "")
    kind = next((word for word in _KINDS if word in usage.split(" ", 1)[-1]), "")
    values = re.search(r"'[^']*'(?:, '[^']*')*", problem)
    if kind and values:
        return f"{name} must be {_KINDS[kind]}, not {values[0].replace(chr(39), '')}."
    return f"{name}: {problem.rstrip('.')}."


def _sections(box: str) -> list[list[str]]:
    """Return the lines of a box, without its frame and its margin, in the sections between rules.

    Where the terminal does not take UTF-8, there is no frame, and the title is a section.
    """
    sections: list[list[str]] = [[]]
    for line in box.splitlines():
        content = line.replace("│", " ").rstrip()
        if not content or content.startswith(("╭", "╰")):
            continue
        if {*content.strip()} <= {*"─-"}:
            sections.append([])
        else:
            sections[-1].append(content[_MARGIN:])
    if "╭" not in box:
        del sections[0]
    return [lines for lines in sections if lines] or [["the arguments cannot be parsed"]]
