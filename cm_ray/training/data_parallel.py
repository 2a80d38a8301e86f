"""Data-parallel students: their gradients are summed in the same order from the first step on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from cm_ray.networks.model import ModelSpec
from cm_ray.training.memory import step_in_memory


def settle_buckets(replica: nn.Module, spec: ModelSpec, rows: int, device: torch.device) -> None:
    """Take a backward pass on zeros, after which DistributedDataParallel rebuilds its gradient buckets.

    Without it the first step of every start sums the gradients of three or more workers in another order
    than later steps do, and a training that was interrupted ends with other bits. rows: images of a pass.
    Raises UserError when they do not fit into memory.
    """
    labels = torch.zeros(rows, dtype=torch.int64, device=device) if spec.classes else None
    x, t = torch.zeros(rows, *spec.shape, device=device), torch.ones(rows, device=device)
    augment = torch.zeros(rows, spec.augment, device=device) if spec.augment else None
    with step_in_memory(rows):
        replica(x, t, labels, augment=augment).sum().backward()
    replica.zero_grad(set_to_none=True)


@contextlib.contextmanager
def without_sync(*replicas: nn.Module | None) -> Iterator[None]:
    """Keep gradients on the worker inside of this context: in all micro-batches of a step but the last."""
    with contextlib.ExitStack() as stack:
        for replica in replicas:
            stack.enter_context(getattr(replica, "no_sync", contextlib.nullcontext)())
        yield
