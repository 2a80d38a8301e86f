"""The command line of a sweep: its options, and the name of a search space, which is checked at once."""

from __future__ import annotations

from collections.abc import Sequence

from cm_ray.command_line.options import option_paths, parse
from cm_ray.sweeps.options import Sweep
from cm_ray.sweeps.space_names import space_file


def parse_sweep(words: Sequence[str], *, prog: str | None = None) -> Sweep:
    """Return the settings that a command line gives. Raises UserError when there is no such search space."""
    settings: Sweep = parse(Sweep, words, prog=prog)
    space_file(settings.space)
    return settings


def sweep_paths() -> set[str]:
    """Return the paths of the settings that a sweep has options for."""
    return option_paths(Sweep)
