"""Snapshots of a run's power-function averages, and averages of other lengths that are made of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cm_ray.core.averages import LONGEST, PowerEMA
from cm_ray.core.power_function import Profile, Reconstruction, reconstruction
from cm_ray.errors import UserError, setting
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.background import BackgroundWriter
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.choices import word_of
from cm_ray.storage.files import remove, written_aside
from cm_ray.storage.tensor_files import check_finite

MOST_ERROR = 0.25
"""Largest error of a reconstruction, as a share of the profile's norm; beyond, it is another length."""


@dataclass(frozen=True)
class Snapshot:
    """The averages of a training after `step` steps."""

    step: int
    averaged: int
    """Number of steps that the averages have taken; less than `step` in later rounds."""
    lengths: tuple[float, ...]
    tensors: dict[str, Tensor]
    """Tensors on the CPU by ``ema0/name``, ``ema1/name`` …, in the order of the lengths."""


class SnapshotStore:
    """The folder of a run's snapshots; a thread writes them.

    Snapshots of an earlier round of progressive distillation are removed, because averages begin anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer = BackgroundWriter("snapshot")

    def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot in the background. Raises the error of the one before."""
        self._writer.submit(partial(self._write, snapshot))

    def wait(self) -> None:
        """Wait until the snapshot is written. Raises the error of the writing thread."""
        self._writer.wait()

    def close(self) -> None:
        """Wait until the snapshot is written, and end the thread."""
        self._writer.close()

    def files(self) -> dict[int, Path]:
        """Return the file of each snapshot by its step, ascending."""
        found = {int(path.stem[5:]): path for path in self.folder.glob("step-*.safetensors")}
        return {step: found[step] for step in sorted(found)}

    def clean(self) -> None:
        """Remove unfinished snapshots of killed processes."""
        for part in self.folder.glob(".*.part"):
            remove(part)

    def forget_after(self, step: int) -> None:
        """Remove snapshots of later steps than `step`; these steps are repeated."""
        for later, path in self.files().items():
            if later > step:
                remove(path)

    def _write(self, snapshot: Snapshot) -> None:
        facts = {"averaged": snapshot.averaged, "lengths": snapshot.lengths}
        with written_aside(self.folder / f"step-{snapshot.step:08d}.safetensors") as aside:
            save_file(snapshot.tensors, aside, metadata={"snapshot": json.dumps(facts)})
        for step, path in self.files().items():
            if step <= snapshot.step - snapshot.averaged:
                remove(path)


class _Source(NamedTuple):
    """A file that has a tracked average."""

    file: Path
    group: str
    """The beginning of the names of the average's tensors."""


@dataclass(frozen=True)
class KeptAverages:
    """The power-function averages that a run has kept up to a step, of which others are made."""

    run: RunDirectory
    step: int
    averages: PowerEMA
    averaged: int
    """Number of steps that the averages have taken at that step."""
    sources: dict[Profile, _Source]

    @classmethod
    def of(cls, run: RunDirectory, recipe: Recipe, step: int) -> KeptAverages:
        """Return the averages that are kept up to `step`: in snapshots, and in the checkpoint of that step.

        Raises UserError when the run has averages of another kind, or neither a snapshot nor a checkpoint of
        that step.
        """
        if not isinstance(recipe.averages, PowerEMA):
            raise UserError(
                f"{run.root} was trained with averages {word_of(recipe.averages)}, whose decays are fixed; "
                f"train with {setting('averages')} power to choose a length afterwards."
            )
        known = kept_steps(run, recipe)
        if step not in known:
            raise UserError(
                f"{run.root} has kept no averages of step {step}; choose one of {', '.join(map(str, known))}."
            )
        files = SnapshotStore(run.snapshots).files()
        if step not in files:
            files[step] = _checkpoints(run, recipe).state_file(step)
            run.fetch(files[step])
        averaged = recipe.averaged_steps(step)
        return cls(
            *(run, step, recipe.averages, averaged),
            {
                Profile(averaged - (step - at), length): _Source(file, f"ema{index}/")
                for at, file in files.items()
                for index, length in enumerate(recipe.averages.lengths)
                if step - averaged < at <= step
            },
        )

    def plan(self, length: float) -> Reconstruction:
        """Return the combination of the kept averages that is nearest to a length."""
        return reconstruction(list(self.sources), Profile(self.averaged, length))

    def check(self, length: float) -> Reconstruction:
        """Return the plan of a length. Raises UserError when the kept averages do not make it."""
        if not 0 < length <= LONGEST:
            raise UserError(f"The length of an average must be in (0, {LONGEST:.4f}], not {length:g}.")
        plan = self.plan(length)
        if plan.error > MOST_ERROR:
            raise UserError(
                f"An average of length {length:g} cannot be made of the snapshots in {self.run.root}: what "
                f"comes nearest differs by {plan.error:.0%}; choose a length nearer to the tracked ones, or "
                f"train with more {setting('averages.snapshots')}."
            )
        return plan

    def weights(self, length: float) -> dict[str, Tensor]:
        """Return the weights of the average of a length (sigma_rel), by name, added up in float64.

        A length that was tracked is returned to the bit. Raises UserError when the kept averages are too far
        apart for the length, or when a file is damaged.
        """
        plan = self.check(length)
        used = [
            (source, coefficient)
            for source, coefficient in zip(self.sources.values(), plan.coefficients, strict=True)
            if coefficient
        ]
        with contextlib.ExitStack() as stack:
            opened = [(stack.enter_context(_opened(s.file)), s.group, c) for s, c in used]
            file, group, _ = opened[0]
            names = [key.removeprefix(group) for key in file.keys() if key.startswith(group)]  # noqa: SIM118
            combined = {name: _combined(name, opened) for name in names}
        check_finite(combined, self.run.snapshots)
        return combined


def kept_steps(run: RunDirectory, recipe: Recipe) -> list[int]:
    """Return the steps of which a snapshot or a checkpoint is kept, ascending."""
    run.fetch(run.snapshots)
    return sorted({*SnapshotStore(run.snapshots).files(), *_checkpoints(run, recipe).steps()})


def _checkpoints(run: RunDirectory, recipe: Recipe) -> CheckpointStore:
    return CheckpointStore(run.checkpoints, recipe.checkpoint.keep)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a file of tensors. Raises UserError when it is damaged or missing."""
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (SafetensorError, FileNotFoundError) as error:
        raise UserError(
            f"The snapshot {file} is damaged ({error}); remove it to go on without it."
        ) from error


def _combined(name: str, opened: Sequence[tuple[Any, str, float]]) -> Tensor:
    """Return a tensor of the combination, from open files, with their groups and coefficients."""
    tensors = ((file.get_tensor(group + name), coefficient) for file, group, coefficient in opened)
    first, coefficient = next(tensors)
    total = coefficient * first.double()
    for tensor, coefficient in tensors:
        total.add_(tensor.double(), alpha=coefficient)
    return total.to(first.dtype)
