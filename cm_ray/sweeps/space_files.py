"""Loading of search spaces from Python files with a `SPACE`: search_spaces/NAME.py, or a user's own."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from cm_ray.errors import UserError
from cm_ray.settings.tree import override
from cm_ray.sweeps.space import Space
from cm_ray.sweeps.space_checks import check_space
from cm_ray.sweeps.space_names import space_file

VARIABLE = "SPACE"


def load_space(name: str, changes: dict[str, Any]) -> Space:
    """Return a space by the name of its file in search_spaces/, or by the path of a file.

    changes: settings of its base, by dotted path. Raises UserError when there is no such file, or its
    space is invalid.
    """
    file = space_file(name)
    space = getattr(_run(file), VARIABLE, None)
    if not isinstance(space, Space):
        raise UserError(f"{file} has no {VARIABLE} = Space(…).")
    space = replace(space, base=override(space.base, changes))
    try:
        check_space(space)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return space


def _run(file: Path) -> ModuleType:
    """Import a file as a module. Raises UserError with the message of any exception in the file."""
    spec = importlib.util.spec_from_file_location(f"cm_ray.search_spaces.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        what = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"{file}: {what}{error}") from error
    return module
