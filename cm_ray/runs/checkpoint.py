"""Checkpoints: safetensors and JSON, written aside and renamed, in the background; nothing is unpickled."""

from __future__ import annotations

import concurrent.futures
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.metrics.score import Score, better, comparable
from cm_ray.storage.files import folder_written_aside, read_json, remove, write_json

_STATE, _META = "state.safetensors", "meta.json"


@dataclass(frozen=True)
class Checkpoint:
    """All state of a training run after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    """By ``group/name``: student, target, ema0 …, optimizer."""
    extra: dict[str, Any] = field(default_factory=dict)
    """JSON values."""
    source: Path = Path("memory")
    """The file that it was read from, for messages."""

    def group(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of one group, without the group's name."""
        start = name + "/"
        return {key[len(start) :]: value for key, value in self.tensors.items() if key.startswith(start)}


class CheckpointStore:
    """The folder of a run's checkpoints: the last `keep` ones and the best.

    `save` copies nothing and returns at once; a single thread writes. An error while writing (a full
    disk, say) is raised by the next call, and the older checkpoints are as they were.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the background, after the one before it."""
        self.wait()
        self._pending = self._writer.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Wait until all is written. Raises what the writing raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def steps(self) -> list[int]:
        """Return the steps of the whole checkpoints, ascending."""
        return sorted(int(path.name[5:]) for path in self.folder.glob("step-*") if (path / _META).is_file())

    def best_step(self) -> int | None:
        """Return the step of the best checkpoint, None if none was scored."""
        file = self.folder / "best.json"
        return int(read_json(file)["step"]) if file.is_file() else None

    def offer_best(self, step: int, score: Score) -> None:
        """Make the checkpoint of `step` the best if its score is better than the best one's.

        A score of another key than the best one's does not compare: the newer way of measuring wins.
        """
        file = self.folder / "best.json"
        best = Score.from_row(read_json(file)["score"]) if file.is_file() else None
        if best is None or not comparable(score, best) or better(score, best):
            write_json(file, {"step": step, "score": score.to_row()})

    def clean(self) -> None:
        """Remove what killed writers left half-written."""
        for part in self.folder.glob(".*.part"):
            remove(part)

    def forget_after(self, step: int) -> None:
        """Forget a best checkpoint of a later step: the steps after `step` are done again."""
        best = self.best_step()
        if best is not None and best > step:
            remove(self.folder / "best.json")

    def load(self, step: int) -> Checkpoint:
        """Read a checkpoint. Raises UserError when it is broken."""
        folder = self._path(step)
        try:
            meta = read_json(folder / _META)
            return Checkpoint(meta["step"], load_file(folder / _STATE), meta["extra"], folder)
        except (SafetensorError, FileNotFoundError, KeyError) as error:
            raise UserError(
                f"The checkpoint {folder} is broken ({error}); remove it to go on from an earlier one."
            ) from error

    def _write(self, checkpoint: Checkpoint) -> None:
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
