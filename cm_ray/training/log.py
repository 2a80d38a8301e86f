"""The log of a training: rows of metrics.jsonl with the loss, the schedules and the speed."""

from __future__ import annotations

import time

import torch

from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.training.batch import StepStats
from cm_ray.training.communication import Communication


class TrainingLog:
    """Writes the mean loss since the last row, over all workers, and the speed in images per second.

    writes: True for the worker that appends the rows; all workers compute them.
    """

    def __init__(self, run: RunDirectory, recipe: Recipe, communication: Communication, writes: bool) -> None:
        self.run, self.recipe, self.communication, self.writes = run, recipe, communication, writes
        self.losses: list[torch.Tensor] = []
        rows = [row for row in run.read_metrics() if "seconds" in row] if writes else []
        self.seconds = rows[-1]["seconds"] if rows else 0.0
        self.since = self.resumed = time.perf_counter()

    def resume(self) -> None:
        """Restart the measurement of the speed after a checkpoint, whose time does not count."""
        self.resumed = time.perf_counter()

    def add(self, stats: StepStats) -> None:
        """Add the loss of a step."""
        self.losses.append(stats.loss)

    def write(self, stats: StepStats) -> None:
        """Append a row for the steps since the last one."""
        loss = float(self.communication.mean(torch.stack(self.losses)).mean())
        now = time.perf_counter()
        speed = len(self.losses) * self.recipe.batch_size / (now - self.resumed)
        self.seconds += now - self.since
        self.losses, self.since, self.resumed = [], now, now
        if self.writes:
            row = {"step": stats.step, "loss": loss, **stats.gauges}
            speeds = {"images_per_s": round(speed, 1), "seconds": round(self.seconds, 3)}
            self.run.append_metrics(row | speeds)
