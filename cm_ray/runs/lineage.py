"""The lineage of a run: its data, code, packages, machine and command."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from cm_ray.data.classes import names_in_words
from cm_ray.data.described import DescribedImages
from cm_ray.errors import UserError
from cm_ray.runs.directory import ANOTHER_DIRECTORY, RunDirectory
from cm_ray.storage.files import read_json, write_json

_PACKAGES = ("cm_ray", "torch", "ray", "mlflow", "numpy", "pyarrow", "safetensors")


class TracedImages(DescribedImages, Protocol):
    """The properties of the data that a lineage contains."""

    @property
    def skipped(self) -> int:
        """Number of bad images that were left out."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""


def write_lineage(run: RunDirectory, data: TracedImages) -> None:
    """Write lineage.json; for a resumed run, add the values that have changed.

    Raises UserError when the run was started with other images, or classes of other names.
    """
    found = lineage(data)
    if not run.lineage_file.exists():
        write_json(run.lineage_file, found)
        return
    before = read_json(run.lineage_file)
    if before["data.fingerprint"] != data.fingerprint:
        raise UserError(
            f"{run.root} was started with other images than those of {data.source}; give the same data, or "
            f"choose {ANOTHER_DIRECTORY}."
        )
    classes = before.get("data.classes", found["data.classes"])
    if classes != found["data.classes"]:
        raise UserError(
            f"{run.root} was started with the classes {classes}, and {data.source} has "
            f"{found['data.classes']}; give the same data, or choose {ANOTHER_DIRECTORY}."
        )
    later = {f"continued.{name}": value for name, value in found.items() if before.get(name) != value}
    write_json(run.lineage_file, before | later)


def lineage(data: TracedImages) -> dict[str, str]:
    """Return the values of data, code, packages, machine and command, as text by name."""
    found = {
        "data.source": data.source,
        "data.fingerprint": data.fingerprint,
        "data.count": str(data.count),
        "data.skipped": str(data.skipped),
        "data.classes": _classes(data.class_names),
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
    found.update({f"package.{name}": _version(name) for name in _PACKAGES})
    revision = _git("rev-parse", "HEAD")
    if revision:
        dirty = "-dirty" if _git("status", "--porcelain") else ""
        found["git.revision"] = revision + dirty
    return found


def _classes(names: tuple[str, ...]) -> str:
    """Return the names of the classes as a short text that differs if any name or their order does."""
    if not names:
        return "none"
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    return f"{names_in_words(names)} (SHA-256 {digest[:12]})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    """Return the output of git in the checkout of this code; empty if there is no checkout."""
    code = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(code), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
