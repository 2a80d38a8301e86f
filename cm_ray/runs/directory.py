"""A run directory: what is where, the log of a run, and the lock that gives it to one process.

config.json        the settings           lineage.json   data fingerprint, git revision, versions
search.json        in its place: a search for time points; source.json: an evaluation; sweep.json: a sweep
metrics.jsonl      a row per log interval  result.json    scores with their keys, timings, paths
checkpoints/       step-00001000/ …, best.json
samples/           *.png and *.npz        model/         what sampling needs: model.json, weights
teacher/, initial/ copies of the models that it was distilled from and started from
rounds/            of progressive distillation: the model of every round, by its sampling steps
tracking.json      the MLflow run and how far it has been told; of an evaluation, tracking/*/tracking.json
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError
from cm_ray.recipes.config import TrainConfig, differences, from_dict, to_dict
from cm_ray.storage.files import read_json, remove, write_json, written_aside

_OWNERS = {
    "config.json": "a training run",
    "search.json": "a search for time points",
    "source.json": "an evaluation",
    "sweep.json": "a sweep",
    "cells": "a table",
}
"""What each job writes before all else, and whose a directory with it is; of several, the first counts."""
_OF_SOMEBODY = ("result.json", "tracking.json", "checkpoints")
"""What no directory has that is free."""


@dataclass(frozen=True)
class RunDirectory:
    """The places of one run."""

    root: Path

    @property
    def config_file(self) -> Path:
        """The settings."""
        return self.root / "config.json"

    @property
    def search_file(self) -> Path:
        """What is searched for, of a search for time points."""
        return self.root / "search.json"

    @property
    def stop_file(self) -> Path:
        """Asks the workers to stop after the step that they are at."""
        return self.root / "stop"

    @property
    def sweep_file(self) -> Path:
        """What is swept, of a sweep."""
        return self.root / "sweep.json"

    @property
    def source_file(self) -> Path:
        """What is scored, of an evaluation."""
        return self.root / "source.json"

    @property
    def lineage_file(self) -> Path:
        """Where the run comes from."""
        return self.root / "lineage.json"

    @property
    def metrics_file(self) -> Path:
        """The log: one JSON row per log interval or evaluation, steps ascending."""
        return self.root / "metrics.jsonl"

    @property
    def result_file(self) -> Path:
        """What came out; there only when the run is finished."""
        return self.root / "result.json"

    @property
    def error_file(self) -> Path:
        """Why a worker gave up; there only while that is being told."""
        return self.root / "error.json"

    @property
    def tracking_file(self) -> Path:
        """The MLflow run and how far it has been told."""
        return self.root / "tracking.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of sample pictures and arrays."""
        return self.root / "samples"

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.root / "model"

    @property
    def teacher(self) -> Path:
        """Folder of the copy of the teacher, if there is one."""
        return self.root / "teacher"

    @property
    def initial(self) -> Path:
        """Folder of the copy of the model whose weights training starts from, if there is one."""
        return self.root / "initial"

    @property
    def rounds(self) -> Path:
        """Folder of the models of the rounds of progressive distillation, by sampling steps."""
        return self.root / "rounds"

    def check_owner(self, mine: Path) -> None:
        """Raise UserError when the directory is another job's than the one that writes the file `mine`.

        mine: `config_file`, `search_file`, `source_file` or `sweep_file`. Ask before anything is written.
        """
        found = next((name for name in _OWNERS if (self.root / name).exists()), None)
        if found is None and any((self.root / name).exists() for name in _OF_SOMEBODY):
            raise UserError(f"{self.root} belongs to another job; choose another --run-dir.")
        if found and found != mine.name:
            raise UserError(f"{self.root} belongs to {_OWNERS[found]}; choose another --run-dir.")

    def config(self) -> TrainConfig:
        """Read the settings. Raises UserError when this is no run directory."""
        if not self.config_file.is_file():
            raise UserError(f"{self.root} is not a run directory: it has no config.json.")
        return from_dict(TrainConfig, read_json(self.config_file))

    def check_same(self, config: TrainConfig) -> None:
        """Raise UserError, naming what differs, when the directory holds a run with other settings.

        Also when it is another job's.
        """
        self.check_owner(self.config_file)
        if self.config_file.is_file() and (others := differences(self.config(), config)):
            raise UserError(
                f"{self.root} holds a run with other settings: {', '.join(others)}; "
                "repeat its settings to go on with it, or choose another --run-dir."
            )

    def claim(self, config: TrainConfig) -> None:
        """Write the settings; raises UserError as `check_same`."""
        self.check_same(config)
        write_json(self.config_file, to_dict(config))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process; it is free again when the process ends, however it ends.

        Raises UserError when another process holds it or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"Cannot write to the run directory {self.root} ({error.strerror}).") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise UserError(f"Another process is working in {self.root}; wait for it or stop it.") from error
        try:
            yield
        finally:
            os.close(handle)

    def clean(self) -> None:
        """Remove what killed processes left half-written; the checkpoints' store sees to its own."""
        for folder in (self.root, self.rounds, self.samples):
            for part in folder.glob(".*.part"):
                remove(part)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one row to the log and flush it to the disk."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return all whole rows of the log; a row that a kill cut short is left out."""
        if not self.metrics_file.is_file():
            return []
        rows = []
        for line in self.metrics_file.read_text().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
        return rows

    def forget_metrics_after(self, step: int) -> None:
        """Drop the rows of steps that will be done again, so that the log is that of one unbroken run."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        with written_aside(self.metrics_file) as aside:
            aside.write_text("".join(json.dumps(row) + "\n" for row in rows))


def default_run_dir(name: str) -> Path:
    """Return where a run called `name` goes that names no directory: $CM_RAY_RUNS or ./runs, and the name.

    Inside a submitted Ray job the working directory is a copy that Ray throws away, so runs go to
    ~/cm_ray/runs there.
    """
    if root := os.environ.get("CM_RAY_RUNS"):
        return Path(root).absolute() / name
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return (Path.home() / "cm_ray" / "runs" if in_job else Path.cwd() / "runs") / name
