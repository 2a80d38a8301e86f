"""Detection of losses that are not finite, without waiting for the device."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from cm_ray.errors import UserError, setting
from cm_ray.runs.directory import ANOTHER_DIRECTORY

REMEDY = (
    f"Start again in {ANOTHER_DIRECTORY} with a lower {setting('optimizer.learning_rate')}, or set "
    f"{setting('optimizer.gradient_clip')}; the last good checkpoint is kept."
)


class LossWatch:
    """Queue of losses that are checked when their values are available.

    The loss of a GPU is copied to pinned memory asynchronously, and is checked after the copy has finished.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, loss: Tensor) -> None:
        """Add the loss of a step, a scalar, to the queue."""
        if loss.device.type != "cuda":
            self._pending.append((step, loss, None))
            return
        host = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(loss.device))
        self._pending.append((step, host, arrived))

    def check(self, *, wait: bool) -> None:
        """Raise UserError when an available loss is not finite. wait: wait for all losses of the queue."""
        while self._pending:
            step, loss, arrived = self._pending[0]
            if arrived is not None and not arrived.query():
                if not wait:
                    return
                arrived.synchronize()
            self._pending.popleft()
            if not torch.isfinite(loss):
                raise UserError(f"The loss is {float(loss)} at step {step}. {REMEDY}")
