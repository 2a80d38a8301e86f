"""A run directory: the places of its files, the log of a run, and the lock that gives it to one process.

config.json        the settings           lineage.json   data fingerprint, git revision, versions
resources.json     the device, workers and threads that the run began with
search.json        instead of config.json for a search for time points; source.json for an evaluation;
                   sweep.json for a sweep; likelihood-source.json for likelihoods
metrics.jsonl      a row per log interval  result.json    scores with their keys, timings, paths
checkpoints/       step-00001000/ …, best.json
snapshots/         step-00001000.safetensors …: averages by power functions, of which others are made
samples/           *.png and *.npz        model/         model.json and weights, all that sampling needs
teacher/, initial/ copies of the models that the run is distilled from and starts from
rounds/            models of the rounds of progressive distillation, by their sampling steps
averages.json      scores of averages of several lengths; averages.md, averages.png
tracking.json      the MLflow run and what it has received; for an evaluation, tracking/*/tracking.json
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cm_ray.errors import UserError, setting
from cm_ray.recipes.recipe import Recipe, differences
from cm_ray.runs.copied import Copied
from cm_ray.runs.records import read_lineage, read_result, read_rows
from cm_ray.settings.tree import from_dict, to_dict
from cm_ray.storage.files import read_json, remove, write_json, written_aside

_OWNERS = {
    "config.json": "a training run",
    "search.json": "a search for time points",
    "source.json": "an evaluation",
    "sweep.json": "a sweep",
    "likelihood-source.json": "likelihoods",
    "cells": "a table",
}
"""The file that each job writes first, and a name of the job; the first file that exists decides."""
ANOTHER_DIRECTORY = f"another {setting('run_dir', python='directory (out)', otherwise='directory')}"
"""Advice in messages."""
_OF_SOMEBODY = ("result.json", "tracking.json", "checkpoints")
"""Files and folders that a free directory does not have."""


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run, and the address that they are a copy of, if there is one.

    For a folder, `publish`, `published`, `fetch` and `follow` do nothing.
    """

    root: Path
    """The directory itself."""
    copied: Copied | None = field(default=None, compare=False, repr=False)

    @property
    def place(self) -> str:
        """The address, or the absolute path of the folder, by which the run is found again."""
        return self.copied.address if self.copied is not None else str(self.root)

    @property
    def config_file(self) -> Path:
        """The settings of a training run."""
        return self.root / "config.json"

    @property
    def search_file(self) -> Path:
        """The settings of a search for time points."""
        return self.root / "search.json"

    @property
    def stop_file(self) -> Path:
        """A file that asks the workers to stop after the present step."""
        return self.root / "stop"

    @property
    def sweep_file(self) -> Path:
        """The settings of a sweep."""
        return self.root / "sweep.json"

    @property
    def source_file(self) -> Path:
        """The source that an evaluation scores."""
        return self.root / "source.json"

    @property
    def lineage_file(self) -> Path:
        """The origin of the run: data fingerprint, git revision, versions, command."""
        return self.root / "lineage.json"

    @property
    def metrics_file(self) -> Path:
        """The log: one JSON row per log interval or evaluation, in ascending order of steps."""
        return self.root / "metrics.jsonl"

    @property
    def result_file(self) -> Path:
        """The results; the file exists only when the run is finished."""
        return self.root / "result.json"

    @property
    def tracking_file(self) -> Path:
        """The MLflow run and what it has received."""
        return self.root / "tracking.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Folder of the snapshots of averages by power functions."""
        return self.root / "snapshots"

    @property
    def averages_file(self) -> Path:
        """The scores of averages of several lengths, a row for each."""
        return self.root / "averages.json"

    @property
    def scoring_work(self) -> Path:
        """Folder of models and statistics of samples while a model, or averages of it, are scored."""
        return self.root / "scoring-work"

    @property
    def samples(self) -> Path:
        """Folder of pictures and arrays of samples."""
        return self.root / "samples"

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.root / "model"

    @property
    def teacher(self) -> Path:
        """Folder with the copy of the teacher, if there is one."""
        return self.root / "teacher"

    @property
    def initial(self) -> Path:
        """Folder with the copy of the model whose weights training starts from, if there is one."""
        return self.root / "initial"

    @property
    def rounds(self) -> Path:
        """Folder with the models of the rounds of progressive distillation, by sampling steps."""
        return self.root / "rounds"

    def check_owner(self, mine: Path) -> None:
        """Raise UserError when the directory belongs to another job than the one that writes the file `mine`.

        mine: `config_file`, `search_file`, `source_file` or `sweep_file`. Call this before anything is
        written.
        """
        found = next((name for name in _OWNERS if (self.root / name).exists()), None)
        if found is None and any((self.root / name).exists() for name in _OF_SOMEBODY):
            raise UserError(f"{self.root} belongs to another job; choose {ANOTHER_DIRECTORY}.")
        if found and found != mine.name:
            raise UserError(f"{self.root} belongs to {_OWNERS[found]}; choose {ANOTHER_DIRECTORY}.")

    def config(self) -> Recipe:
        """Read the settings. Raises UserError when this is not a run directory."""
        if not self.config_file.is_file():
            raise UserError(
                f"{self.root} is not a run directory, as it has no config.json; choose another one."
            )
        return from_dict(Recipe, read_json(self.config_file), file=str(self.config_file))

    def check_same(self, config: Recipe) -> None:
        """Raise UserError, with the settings that differ, when the directory has a run with other settings.

        Raises UserError as well when it belongs to another job.
        """
        self.check_owner(self.config_file)
        if self.config_file.is_file() and (others := differences(self.config(), config)):
            raise UserError(
                f"{self.root} has a run with other settings: {', '.join(others)}; "
                f"repeat its settings to continue it, or choose {ANOTHER_DIRECTORY}."
            )

    def claim(self, config: Recipe) -> None:
        """Write the settings. Raises UserError as `check_same` does."""
        self.check_same(config)
        write_json(self.config_file, to_dict(config))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory for this process; the lock ends with the process, even when that is killed.

        Raises UserError when another process has the lock, or when the directory cannot be written.
        """
        if self.copied is not None:
            with self.copied.locked():
                yield
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"Cannot write to the run directory {self.root} ({error.strerror}); choose "
                f"{ANOTHER_DIRECTORY}."
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise UserError(f"Another process is working in {self.root}; wait for it or stop it.") from error
        try:
            yield
        finally:
            os.close(handle)

    def publish(self) -> None:
        """Begin to write what is new to the address. Raises the error of writing before."""
        if self.copied is not None:
            self.copied.publish()

    def published(self) -> None:
        """Wait until everything is at the address. Raises the error of writing."""
        if self.copied is not None:
            self.copied.wait()

    def fetch(self, path: Path) -> None:
        """Copy a file or a folder of the run from the address, so that it can be read here."""
        if self.copied is not None:
            self.copied.fetch(path)

    def follow(self, *, last: bool = False) -> None:
        """Copy new rows of the log, which another process writes, from the address.

        last: at once; otherwise some time may pass between two copies.
        """
        if self.copied is not None:
            self.copied.follow(last=last)

    def clean(self) -> None:
        """Remove files that killed processes left half-written. Checkpoints have their own cleaning."""
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
        """Return all complete rows of the log; a row that an interruption cut short is skipped."""
        return read_rows(self.metrics_file) if self.metrics_file.is_file() else []

    def result(self) -> dict[str, Any]:
        """Return the results of a finished training. Raises UserError when the file is damaged."""
        return read_result(self.result_file)

    def lineage(self) -> dict[str, str]:
        """Return the origin of the run. Raises UserError when the file is damaged or missing."""
        if not self.lineage_file.is_file():
            raise UserError(f"{self.root} has no {self.lineage_file.name}; restore it.")
        return read_lineage(self.lineage_file)

    def scored_steps(self) -> set[int]:
        """Return the steps after which the model was scored while training."""
        return {row["step"] for row in self.read_metrics() if "scores" in row}

    def forget_metrics_after(self, step: int) -> None:
        """Remove rows of later steps, as if a continued run had never been interrupted."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        with written_aside(self.metrics_file) as aside:
            aside.write_text("".join(json.dumps(row) + "\n" for row in rows))
