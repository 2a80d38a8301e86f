"""The command that searches for settings."""

from __future__ import annotations

from typing import Any

from cm_ray.cluster.sweeps.run_sweep import sweep
from cm_ray.command_line.options import parse_changes
from cm_ray.sweeps.options import Sweep


def run(settings: Sweep) -> None:
    """Sweep, and print the report."""
    report = sweep(settings, changes_of(settings)).root / "report.md"
    print(report.read_text())
    print(report)


def changes_of(settings: Sweep) -> dict[str, Any]:
    """Return the settings of all trials that the command changes, by dotted path."""
    teacher = {"teacher.model": settings.teacher} if settings.teacher else {}
    return parse_changes(settings.set) | teacher
