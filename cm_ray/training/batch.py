"""The input and the output of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A worker's share of a global batch."""

    images: Tensor
    """uint8 (b, c, h, w)."""
    labels: Tensor
    """int64 (b,), -1 where there is none; used by conditional networks only."""

    def rows(self, first: int, count: int) -> Batch:
        """Return `count` rows from `first` on."""
        span = slice(first, first + count)
        return Batch(self.images[span], self.labels[span])


@dataclass(frozen=True, slots=True)
class Share:
    """The part of every global batch that this worker takes."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class StepStats:
    """The report of a step."""

    step: int
    """Steps done."""
    loss: Tensor
    """Mean loss of this worker's share, a scalar on the device: reading it waits for the device."""
    gauges: Mapping[str, float]
    """The values of the curricula that the method has: num_scales N(k), target_decay mu(k), learning_rate
    ..."""
