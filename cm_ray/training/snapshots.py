"""Snapshots of the averages while training, at the steps that the recipe says."""

from __future__ import annotations

import torch

from cm_ray.core.averages import PowerEMA
from cm_ray.networks.architectures import Architecture
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.snapshots import Snapshot, SnapshotStore
from cm_ray.training.engine import Engine
from cm_ray.training.students import contiguous_copy


class SnapshotTaker:
    """Takes the snapshots of rank 0, in the background of the training."""

    def __init__(self, engine: Engine, store: SnapshotStore) -> None:
        self.engine, self.store = engine, store
        self.due = engine.config.snapshot_steps

    def resume(self, step: int) -> None:
        """Remove what belongs to later steps, as if a continued run had never been interrupted."""
        self.store.clean()
        self.store.forget_after(step)

    def take(self) -> None:
        """Copy the averages to the CPU, and begin to write them, if a snapshot is due after the last step.

        Raises the error of writing the snapshot before.
        """
        if self.engine.step in self.due:
            self.store.wait()  # else the host holds two copies of the averages
            self.store.save(snapshot_of(self.engine))

    def wait(self) -> None:
        """Wait until the last snapshot is written. Raises the error of the writing thread."""
        self.store.wait()

    def close(self) -> None:
        """Wait until the last snapshot is written, and end the thread."""
        self.store.close()


def disk_use(recipe: Recipe, spec: ModelSpec) -> str | None:
    """Return a sentence with the disk space that the snapshots of a training will take; None without any."""
    averages = recipe.averages
    if not isinstance(averages, PowerEMA) or not averages.snapshots:
        return None
    own = not isinstance(spec.network, Architecture)  # which may need values to be built
    with torch.device("cpu" if own else "meta"):
        parameters = sum(parameter.numel() for parameter in Model(spec).parameters())
    steps = recipe.averaged_steps(recipe.steps)
    count, size = len(averages.snapshot_steps(0, steps)), averages.snapshot_bytes(parameters, steps)
    return (
        f"{count} snapshots of {len(averages.lengths)} averages will take {size / 2**30:.2f} GiB "
        "(averages.snapshots)"
    )


def snapshot_of(engine: Engine) -> Snapshot:
    """Return a copy of all averages on the CPU."""
    step, lengths = engine.step, engine.config.averages.lengths
    tensors = {
        f"ema{index}/{name}": contiguous_copy(tensor)
        for index in range(len(lengths))
        for name, tensor in engine.averaged_weights(index).items()
    }
    return Snapshot(step, engine.config.averaged_steps(step), lengths, tensors)
