"""The lineage of a run: its data, code, packages, machine and command."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cm_ray.data.interface.classes import names_in_words
from cm_ray.data.interface.described import DescribedImages
from cm_ray.errors import UserError
from cm_ray.runs.console import say
from cm_ray.runs.directory import ANOTHER_DIRECTORY, RunDirectory
from cm_ray.storage.files import write_json

REVISION_VARIABLE = "CM_RAY_REVISION"
"""The git revision of the code in a submitted job, into which Ray copies no .git."""
_PACKAGES = ("cm_ray", "torch", "ray", "mlflow", "numpy", "pyarrow", "safetensors")
_CODE, _REVISION = "code.sha256", "git.revision"


class TracedImages(DescribedImages, Protocol):
    """The properties of the data that a lineage contains."""

    @property
    def skipped(self) -> int:
        """Number of bad images that were left out."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""


def write_lineage(run: RunDirectory, data: TracedImages) -> None:
    """Write lineage.json; for a resumed run, add the values that have changed, and say if it is other code.

    Raises UserError when the run was started with other images, or classes of other names.
    """
    found = lineage(data)
    if not run.lineage_file.exists():
        write_json(run.lineage_file, found)
        return
    before = run.lineage()
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
    if other := other_code(before, found):
        say(f"The run goes on with other code than it began with ({other}), which may change its result.")
    later = {f"continued.{name}": value for name, value in found.items() if before.get(name) != value}
    write_json(run.lineage_file, before | later)


def other_code(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return how code and packages differ, as far as both lineages know them; empty if they do not."""
    names = [name for name in now if name == _CODE or name.startswith("package.")]
    changed = [name for name in names if name in before and before[name] != now[name]]
    if _CODE in changed and before.get(_REVISION, "") != now.get(_REVISION, ""):
        changed[changed.index(_CODE)] = _REVISION
    return ", ".join(
        f"{name}: {before.get(name, 'unknown')[:12]} then, {now.get(name, 'unknown')[:12]} now"
        for name in changed
    )


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
        _CODE: code_digest(),
    }
    found.update({f"package.{name}": _version(name) for name in _PACKAGES})
    if revision := os.environ.get(REVISION_VARIABLE) or _git_revision():
        found[_REVISION] = revision
    return found


def _classes(names: tuple[str, ...]) -> str:
    """Return the names of the classes as a short text that differs if any name or their order does."""
    if not names:
        return "none"
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    return f"{names_in_words(names)} (SHA-256 {digest[:12]})"


def code_digest(folder: Path = Path(__file__).parents[1]) -> str:
    """Return the SHA-256 of all Python files of a package, which a job and a checkout have in common."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_revision() -> str:
    """Return the commit of the checkout of this code, with -dirty after changes; empty without a checkout."""
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *describe], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
