"""The command that searches for settings."""

from __future__ import annotations

from cm_ray.cluster.sweeps.run_sweep import sweep
from cm_ray.command_line.options import parse_changes
from cm_ray.sweeps.options import Sweep


def run(settings: Sweep) -> None:
    """Sweep, and print the report."""
    changes = parse_changes(settings.set)
    if settings.teacher:
        changes["teacher.model"] = settings.teacher
    report = sweep(settings, changes).root / "report.md"
    print(report.read_text())
    print(report)
