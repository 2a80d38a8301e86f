"""The command that finds time points."""

from __future__ import annotations

from cm_ray.cluster.time_points.find import find_time_points
from cm_ray.command_line.settings.time_points import TimePointSearch


def run(settings: TimePointSearch) -> None:
    """Search, and print the table of time points and the files."""
    directory = find_time_points(settings)
    print((directory.root / "time_points.md").read_text())
    for path in (*sorted(directory.root.glob("time_points.*")), *sorted(directory.samples.glob("*.png"))):
        print(path)
