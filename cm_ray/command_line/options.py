"""Jobs as commands: options made from dataclasses, one-sentence errors, exit codes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from cm_ray.command_line.recipe_options import option, parse_recipe
from cm_ray.errors import SettingError, UserError
from cm_ray.recipes import PRESETS, preset
from cm_ray.recipes.recipe import Recipe

T = TypeVar("T")

DEBUG_VARIABLE = "CM_RAY_DEBUG"
"""Set to 1 by --debug: tracebacks of user errors, and Ray's logs on the terminal."""

_EPILOGUE = "--debug shows tracebacks and Ray's logs."


def run_job(settings: type[T] | T, run: Callable[[T], None], description: str = "") -> None:
    """Parse the command line into `settings`, run a job on them, and exit with its code.

    settings: a dataclass, or an instance of one whose values are the defaults. Exit codes: 0 done; 2 bad
    input or environment, said in one sentence on stderr; 130 interrupted. What else is raised is a defect
    and keeps its traceback.
    """
    arguments = _arguments({})
    sys.exit(_guarded(lambda: run(_parse(settings, arguments, description, _EPILOGUE))))


def run_training(default: Recipe | None, run: Callable[[Recipe], None], description: str = "") -> None:
    """As `run_job`, for a training config: ``--config FILE`` replaces the preset, options change it.

    default: the preset; None takes its name from the command line's first word.
    """
    arguments = _arguments({})

    def parse_and_run() -> None:
        chosen = default or _preset(arguments, description)
        run(parse_recipe(chosen, arguments, description))

    sys.exit(_guarded(parse_and_run))


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


def _parse(settings: type[T] | T, arguments: list[str], description: str, epilogue: str) -> T:
    text = f"{description.strip()}\n\n{epilogue}"
    if isinstance(settings, type):
        return tyro.cli(settings, args=arguments, description=text)
    kind: Any = type(settings)
    parsed: T = tyro.cli(kind, default=settings, args=arguments, description=text)
    return parsed


def _arguments(aliases: Mapping[str, str]) -> list[str]:
    """Return the command line with short options spelt out and --debug taken."""
    arguments = []
    for argument in sys.argv[1:]:
        name, *value = argument.split("=", 1)
        arguments.append("=".join([aliases.get(name.replace("_", "-"), name), *value]))
    if "--debug" in arguments:
        arguments.remove("--debug")
        os.environ[DEBUG_VARIABLE] = "1"
    return arguments


def _preset(arguments: list[str], description: str) -> Recipe:
    """Take the preset's name off the arguments."""
    if arguments[:1] and not arguments[0].startswith("-"):
        return preset(arguments.pop(0))
    known = ", ".join(PRESETS)
    if arguments[:1] in (["--help"], ["-h"]):
        print(f"{description.strip()}\n\nPresets: {known}. PRESET --help shows all settings.")
        sys.exit(0)
    raise UserError(f"Name a preset first: {known}.")


def _guarded(action: Callable[[], None]) -> int:
    """Run `action` and return the exit code; a UserError becomes its sentence."""
    try:
        action()
    except UserError as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        text = (
            f"{option(error.path)}{str(error)[len(error.path) :]}"
            if isinstance(error, SettingError)
            else error
        )
        print(f"error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0
