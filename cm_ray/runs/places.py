"""The places of runs: given ones, and those of runs that only have a name."""

from __future__ import annotations

import os
from pathlib import Path

from cm_ray.errors import UserError
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import local_path


def finished_run(name: str | Path) -> RunDirectory:
    """Return a finished training run by its directory, or by its name in the default folder of runs.

    Raises UserError when there is none, or when it is not finished.
    """
    folders = [Path(name).expanduser(), default_run_dir(str(name))]
    found = [folder for folder in folders if (folder / "config.json").is_file()]
    if not found:
        raise UserError(f"{name} is not a training run; give the name or the directory of one.")
    run = RunDirectory(found[0].absolute())
    if not run.result_file.is_file():
        raise UserError(f"The run in {found[0]} is not finished; repeat its command first.")
    return run


def run_place(given: str | Path, name: str) -> Path:
    """Return the absolute directory of a run: the given one, else the default one of a run called `name`.

    Raises UserError when it is the address of an object store.
    """
    return local_path(given) if given else default_run_dir(name)


def default_run_dir(name: str) -> Path:
    """Return the directory of a run called `name` that names none: $CM_RAY_RUNS/name or ./runs/name.

    Inside of a submitted Ray job it is ~/cm_ray/runs/name, since Ray deletes the job's working directory.
    """
    if root := os.environ.get("CM_RAY_RUNS"):
        return local_path(root) / name
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return (Path.home() / "cm_ray" / "runs" if in_job else Path.cwd() / "runs") / name
