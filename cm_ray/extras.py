"""Packages that are not installed with cm_ray alone: a missing one is named with the extra that has it.

The extras are those of pyproject.toml: train, track, scores, app, onnx, cloud, and all.
"""

from __future__ import annotations

import importlib.util

from cm_ray.errors import UserError


class MissingPackage(UserError, ImportError):
    """A package that is not installed, with the extra of cm_ray that installs it."""


def needs(*packages: str, extra: str, instead: str = "") -> None:
    """Raise `MissingPackage` when one of the packages is not installed; import none of them.

    packages: names of top-level modules, such as ``mlflow``. extra: the extra of cm_ray that has them, such
    as ``track``. instead: what else the user can do, such as ``give --tracking-uri none``.
    """
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        advice = f"run pip install 'cm_ray[{extra}]'" + (f", or {instead}" if instead else "")
        raise MissingPackage(f"{' and '.join(missing)} {verb} not installed: {advice}.", name=missing[0])


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
