"""Tell MLflow what it does not know yet of a run, after the server was away.

python jobs/track.py runs/demo
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cm_ray.command_line.options import run_job
from cm_ray.runs.directory import RunDirectory
from cm_ray.tracking import resend


@dataclass(frozen=True, kw_only=True)
class Track:
    """Which run."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The run directory; its config says which server."""


def track(args: Track) -> None:
    """Send what the server does not have, and register the model of a finished run."""
    registered = resend(RunDirectory(args.run_dir.absolute()))
    print(f"{args.run_dir} is told." if registered is None else f"{registered.uri}: {registered.reason}")


if __name__ == "__main__":
    run_job(Track, track, __doc__ or "")
