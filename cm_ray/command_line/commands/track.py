"""The command that sends a run to MLflow."""

from __future__ import annotations

from cm_ray.command_line.settings.track import Track
from cm_ray.runs.directory import RunDirectory
from cm_ray.tracking import resend


def run(args: Track) -> None:
    """Send what the server does not have, and register the model of a finished run."""
    registered = resend(RunDirectory(args.run_dir.absolute()))
    print(f"{args.run_dir} is sent." if registered is None else f"{registered.uri}: {registered.reason}")
