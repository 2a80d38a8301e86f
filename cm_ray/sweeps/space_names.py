"""Names of search spaces and their files; without Optuna, so that a command refuses a wrong one at once."""

from __future__ import annotations

from pathlib import Path

from cm_ray.errors import UserError, closest

_INSTALLED = Path(__file__).parents[1] / "search_spaces"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "search_spaces"
"""The search spaces of cm_ray: a part of the package where it is installed, beside it in a checkout."""


def space_file(name: str) -> Path:
    """Return the file of a space, by its name in search_spaces/ or by a path that ends in .py.

    Raises UserError when there is no such file.
    """
    path = Path(name).expanduser()
    file = path if path.suffix == ".py" else FOLDER / f"{name}.py"
    if not file.is_file():
        known = sorted(each.stem for each in FOLDER.glob("[a-z]*.py"))
        raise UserError(f"There is no search space {name!r}: {closest(path.stem, known)}")
    return file
