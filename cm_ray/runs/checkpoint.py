"""Checkpoints in safetensors and JSON files, written atomically by a background thread.

No code is unpickled from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from cm_ray.errors import UserError, setting
from cm_ray.metrics.score import ROW, Score, better, comparable
from cm_ray.runs.background import BackgroundWriter
from cm_ray.storage.files import folder_written_aside, read_json, remove, write_json
from cm_ray.storage.shapes import Shape
from cm_ray.storage.tensor_files import check_finite, read_safetensors

_STATE, _META = "state.safetensors", "meta.json"
_BEST = {"step": int, "score": ROW}
_SCALER = {
    **dict.fromkeys(("scale", "growth_factor", "backoff_factor"), float),
    **dict.fromkeys(("growth_interval", "_growth_tracker"), int),
}
"""The state of PyTorch's GradScaler, which has none in other precisions than float16."""
META: Shape = {"step": int, "extra": {"scaler?": ({}, _SCALER)}}
"""The shape of a checkpoint's meta.json."""


@dataclass(frozen=True)
class Checkpoint:
    """All state of a training run after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    """Tensors by ``group/name``; the groups are student, target, ema0 …, optimizer."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further state as JSON values."""
    source: Path = Path("memory")
    """Folder that the checkpoint was read from, for messages."""

    def group(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a group by their names without the group's."""
        start = name + "/"
        return {key[len(start) :]: value for key, value in self.tensors.items() if key.startswith(start)}


def read_meta(file: Path) -> tuple[int, dict[str, Any]]:
    """Return the step and the further state in a checkpoint's meta.json. Raises UserError as `read_json`."""
    meta = read_json(file, META)
    return meta["step"], meta["extra"]


class CheckpointStore:
    """The folder of a run's checkpoints; it keeps the last `keep` ones and the best one.

    `save` copies nothing and returns at once; one thread writes. An error while writing, such as a full
    disk, is raised by the next call of `save` or `wait`, and older checkpoints do not change.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._writer = BackgroundWriter("checkpoint")

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the background, after the previous one. Raises the previous one's error."""
        self._writer.submit(partial(self._write, checkpoint))

    def wait(self) -> None:
        """Wait until the checkpoint is written. Raises the error of the writing thread."""
        self._writer.wait()

    def close(self) -> None:
        """Wait until the checkpoint is written, and end the thread."""
        self._writer.close()

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, ascending."""
        names = (path.name[5:] for path in self.folder.glob("step-*") if (path / _META).is_file())
        return sorted(int(name) for name in names if name.isdecimal())

    def best_step(self) -> int | None:
        """Return the step of the best checkpoint; None if no checkpoint was scored."""
        file = self.folder / "best.json"
        return int(read_json(file, _BEST)["step"]) if file.is_file() else None

    def offer_best(self, step: int, score: Score) -> None:
        """Make the checkpoint of `step` the best one if its score is better than the best score.

        Scores with different keys cannot be compared; then the new score replaces the best one.
        """
        file = self.folder / "best.json"
        best = Score.from_file(read_json(file, _BEST)["score"], file) if file.is_file() else None
        if best is None or not comparable(score, best) or better(score, best):
            write_json(file, {"step": step, "score": score.to_row()})

    def clean(self) -> None:
        """Remove unfinished checkpoints of killed processes."""
        for part in self.folder.glob(".*.part"):
            remove(part)

    def forget_after(self, step: int) -> None:
        """Remove the record of the best checkpoint if it is later than `step`; these steps are repeated."""
        best = self.best_step()
        if best is not None and best > step:
            remove(self.folder / "best.json")

    def state_file(self, step: int) -> Path:
        """Return the file with the tensors of a checkpoint."""
        return self._path(step) / _STATE

    def load(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step, of finite tensors. Raises UserError when it is damaged."""
        folder = self._path(step)
        try:
            number, extra = read_meta(folder / _META)
            tensors, _ = read_safetensors(folder / _STATE)
        except (UserError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
            reason = str(error).rstrip(".") if isinstance(error, UserError) else repr(error)
            raise UserError(
                f"The checkpoint {folder} is damaged ({reason}); remove it to resume from an earlier one."
            ) from error
        if number != step:
            raise UserError(f"The checkpoint {folder} is of step {number}; remove it or restore its name.")
        return Checkpoint(step, tensors, extra, folder)

    def _write(self, checkpoint: Checkpoint) -> None:
        rate = setting("optimizer.learning_rate")
        advice = f"the last good checkpoint is kept: train again with a lower {rate}"
        check_finite(checkpoint.tensors, f"the state after step {checkpoint.step}", advice)
        with folder_written_aside(self._path(checkpoint.step)) as aside:
            save_file(checkpoint.tensors, aside / _STATE)
            meta = {"step": checkpoint.step, "extra": checkpoint.extra}
            (aside / _META).write_text(json.dumps(meta))
        self._prune()

    def _prune(self) -> None:
        kept = {*self.steps()[-self.keep :], self.best_step()}
        for step in self.steps():
            if step not in kept:
                remove(self._path(step))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"
