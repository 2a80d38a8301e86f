"""The command that chooses the length of an average."""

from __future__ import annotations

from cm_ray.cluster.evaluation.averages import choose_average
from cm_ray.command_line.settings.averages import AverageLengths
from cm_ray.reports.lengths_report import lengths_table


def run(settings: AverageLengths) -> None:
    """Score the lengths, and print the table and the files."""
    choice = choose_average(settings)
    if choice.scored:
        print(lengths_table(choice.scored))
    for path in choice.files:
        print(path)
