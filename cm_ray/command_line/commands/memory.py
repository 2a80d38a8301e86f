"""The command that estimates the memory of a training."""

from __future__ import annotations

from cm_ray.budget.memory_table import memory_table
from cm_ray.command_line.settings.memory import MemoryQuestion


def run(asked: MemoryQuestion) -> None:
    """Print the table, row by row."""
    for line in memory_table(asked):
        print(line, flush=True)
