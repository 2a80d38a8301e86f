"""Settings as options: parsing by tyro, one-sentence errors, exit codes."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import os
import sys
import traceback
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import tyro

from cm_ray.command_line.tyro_refusals import one_sentence
from cm_ray.errors import DEBUG_VARIABLE, UserError, as_options, plain

T = TypeVar("T")

DRY_RUN = "--dry-run"
EPILOGUE = (
    f"{DRY_RUN} says what is understood of the images that a command would read, and stops. --debug shows "
    "tracebacks and Ray's logs."
)

with tyro.constructors.ConstructorRegistry():
    pass  # tyro makes its rules at their first use, and would load a postponed torch for one about devices


def run_job(settings: type[T], run: Callable[[T], None], description: str = "") -> None:
    """Parse this process's command line into `settings`, run a job on them, and exit with its code.

    settings: a dataclass. description: text of --help; empty stands for the dataclass's docstring. The exit
    codes are those of `exit_code`.
    """
    arguments = without_debug(sys.argv[1:])
    action = lambda: run(parse(settings, arguments, description=description))  # noqa: E731
    sys.exit(exit_code(action, partial(option_paths, settings)))


def parse(settings: Any, arguments: Sequence[str], *, prog: str | None = None, description: str = "") -> Any:
    """Return the settings that a command line gives.

    settings: a dataclass, or an instance of one whose values are the defaults. prog: name of the command in
    the help; None stands for the running script's. Exits with code 0 after --help. Raises UserError on
    options that do not parse, and on values that the settings refuse.
    """
    kind: Any = settings if isinstance(settings, type) else type(settings)
    default: Any = tyro.MISSING_NONPROP if isinstance(settings, type) else settings
    text = f"{(description or inspect.getdoc(kind) or '').strip()}\n\n{EPILOGUE}"
    with one_sentence(arguments):
        return tyro.cli(kind, default=default, args=arguments, prog=prog, description=text)


def without_debug(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without --debug, which goes to the environment, for this job's processes, too."""
    if "--debug" in arguments:
        os.environ[DEBUG_VARIABLE] = "1"
    return [argument for argument in arguments if argument != "--debug"]


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """Return ``dotted.path=value`` as a mapping; values are JSON where they parse as it, else text.

    Raises UserError on a text without a path.
    """
    changes = {}
    for text in texts:
        path, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--set {text!r} must be path=value, such as network.channels=16.")
        try:
            changes[path] = json.loads(value)
        except ValueError:
            changes[path] = value
    return changes


def option_paths(settings: type) -> set[str]:
    """Return the paths of the options that `parse` makes of a dataclass; positional arguments are none."""
    return set(_option_paths(settings, ""))


def _option_paths(settings: type, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(settings, include_extras=True)
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _option_paths(hint, f"{prefix}{field.name}.")
        elif tyro.conf.Positional not in getattr(hint, "__metadata__", ()):
            yield prefix + field.name


def exit_code(action: Callable[[], None], options: Callable[[], Collection[str]] = tuple) -> int:
    """Run `action` and return the exit code.

    0: done; 2: bad input or environment, which a UserError says in one sentence on stderr; 130: interrupted.
    Any other exception is a defect and keeps its traceback. options: returns the paths of the settings that
    the command has options for, which messages then name with dashes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    with as_options(options):
        try:
            action()
        except UserError as error:
            if os.environ.get(DEBUG_VARIABLE):
                print("\n".join(map(plain, traceback.format_exc().splitlines())), file=sys.stderr)
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
            return 130
    return 0
