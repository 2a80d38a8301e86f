"""The command that estimates the memory of a training."""

from __future__ import annotations

from cm_ray.budget.memory_settings import MemoryQuestion
from cm_ray.budget.memory_table import memory_table


def run(asked: MemoryQuestion) -> None:
    """Print the table, row by row."""
    for line in memory_table(asked):
        print(line, flush=True)
