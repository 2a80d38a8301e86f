"""The command that makes the paper's table."""

from __future__ import annotations

from cm_ray.cluster.paper_table import Table, make_table
from cm_ray.command_line.options import parse_changes
from cm_ray.command_line.settings.paper_table import PaperTable
from cm_ray.runs.places import run_place


def run(args: PaperTable) -> None:
    """Make the table, and print it and its files."""
    files = make_table(table_of(args))
    print(files[0].read_text())
    print("\n".join(map(str, files)))


def table_of(args: PaperTable) -> Table:
    """Return the table that the command's settings describe."""
    return Table(
        folder=run_place(args.run_dir, "paper_table"),
        data=args.data,
        changes=parse_changes(args.set),
        methods=args.methods,
        seeds=args.seeds,
        tracking_uri=args.tracking_uri,
    )
