"""Sentences for trainings that do not fit into memory, which say what to do."""

from __future__ import annotations

from contextlib import AbstractContextManager

from cm_ray.core.out_of_memory import in_memory
from cm_ray.errors import setting


def step_in_memory(rows: int) -> AbstractContextManager[None]:
    """Return a context in which a step on `rows` images at a time is taken; see `in_memory`."""
    advice = f"raise {setting('accumulate')}, or set {setting('network.gradient_checkpointing')}"
    return in_memory(f"Steps on {rows} images at a time", advice)


def training_in_memory() -> AbstractContextManager[None]:
    """Return a context for the rest of a training: data, scores, copies for checkpoints; see `in_memory`."""
    advice = (
        f"raise {setting('accumulate')}, lower {setting('evaluation.batch_size')}, or use a machine with more"
    )
    return in_memory("This training, its data, scores and checkpoints", advice)


def state_in_memory() -> AbstractContextManager[None]:
    """Return a context in which networks, averages and the optimizer are made; see `in_memory`."""
    advice = f"lower {setting('network.channels')}, keep fewer averages, or use a device with more memory"
    return in_memory("The networks of the training and the averages of their weights", advice)
