"""The command that edits images."""

from __future__ import annotations

from cm_ray.cluster.editing.edit_files import edit
from cm_ray.command_line.settings.edit import Editing
from cm_ray.storage.files import local_path


def run(settings: Editing) -> None:
    """Edit, and print the paths of the results."""
    local_path(settings.out)
    grid, *results = edit(settings)
    print(grid)
    print(f"{results[0]} and {len(results) - 1} more" if len(results) > 1 else results[0])
