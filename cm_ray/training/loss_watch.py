"""Losses that are not finite are found without waiting for the device."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from cm_ray.errors import UserError

REMEDY = (
    "Begin again in another --run-dir with a lower --optimizer.learning-rate or with "
    "--optimizer.gradient-clip; the last good checkpoint is kept."
)


class LossWatch:
    """Remembers the losses of steps until they are known.

    A GPU's loss is copied to pinned memory behind the work of its step, and looked at when it has arrived.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, loss: Tensor) -> None:
        """Remember the loss of a step, a scalar."""
        if loss.device.type != "cuda":
            self._pending.append((step, loss, None))
            return
        host = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(loss.device))
        self._pending.append((step, host, arrived))

    def check(self, *, wait: bool) -> None:
        """Raise UserError when a loss is not finite: of those that are known, or, with wait, of all."""
        while self._pending:
            step, loss, arrived = self._pending[0]
            if arrived is not None and not arrived.query():
                if not wait:
                    return
                arrived.synchronize()
            self._pending.popleft()
            if not torch.isfinite(loss):
                raise UserError(f"The loss is {float(loss)} at step {step}. {REMEDY}")
