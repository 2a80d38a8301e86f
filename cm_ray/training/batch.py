"""The input and the output of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A worker's share of a global batch."""

    images: Tensor
    """Images, uint8 (b, c, h, w)."""
    labels: Tensor
    """Labels, int64 (b,), -1 for images without one; only conditional networks use them."""

    def rows(self, first: int, count: int) -> Batch:
        """Return `count` rows from `first` on."""
        span = slice(first, first + count)
        return Batch(self.images[span], self.labels[span])


@dataclass(frozen=True, slots=True)
class Share:
    """The share of this worker in every global batch."""

    rank: int = 0
    """Number of the worker."""
    world: int = 1
    """Number of workers."""
    most: int = 0
    """Number of workers that there may be at most, where it may change; 0: it stays."""

    @property
    def parts(self) -> int:
        """Number of parts that every global batch is cut into: each worker has one, or the same number."""
        return self.most or self.world


@dataclass(frozen=True, slots=True)
class StepStats:
    """The loss and the schedules of a training step."""

    step: int
    """Number of finished steps."""
    loss: Tensor
    """Mean loss of this worker's share, a scalar on the device: reading it waits for the device."""
    gauges: Mapping[str, float]
    """Values of the schedules of the method: num_scales N(k), target_decay mu(k), learning_rate ..."""
