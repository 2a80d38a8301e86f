"""The lineage of a run: its data, code, packages, machine and command."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from cm_ray.errors import UserError
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import read_json, write_json

_PACKAGES = ("cm_ray", "torch", "ray", "mlflow", "numpy", "pyarrow", "safetensors")


class DescribedImages(Protocol):
    """The images that a lineage describes: a manifest, or images in memory."""

    @property
    def source(self) -> str:
        """Short name of where the images come from."""

    @property
    def fingerprint(self) -> str:
        """Digest of the images, whatever their order."""

    @property
    def count(self) -> int:
        """Number of images."""

    @property
    def skipped(self) -> int:
        """Bad images that were left out."""


def remember_lineage(run: RunDirectory, data: DescribedImages) -> None:
    """Write lineage.json, or the differences of a continuation; refuse to go on with other images.

    Raises UserError when the run was begun on other images.
    """
    found = lineage(data)
    if not run.lineage_file.exists():
        write_json(run.lineage_file, found)
        return
    before = read_json(run.lineage_file)
    if before["data.fingerprint"] != data.fingerprint:
        raise UserError(
            f"{run.root} was begun on other images than those of {data.source}; give the same data, or "
            "choose another --run-dir."
        )
    later = {f"continued.{name}": value for name, value in found.items() if before.get(name) != value}
    write_json(run.lineage_file, before | later)


def lineage(data: DescribedImages) -> dict[str, str]:
    """Return data, code, packages, machine and command, as flat text."""
    found = {
        "data.source": data.source,
        "data.fingerprint": data.fingerprint,
        "data.count": str(data.count),
        "data.skipped": str(data.skipped),
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }
    found.update({f"package.{name}": _version(name) for name in _PACKAGES})
    revision = _git("rev-parse", "HEAD")
    if revision:
        dirty = "-dirty" if _git("status", "--porcelain") else ""
        found["git.revision"] = revision + dirty
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    """Return the output of git in the code's checkout; empty if it is none."""
    code = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(code), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
