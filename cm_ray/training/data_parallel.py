"""Data-parallel students: their gradients are summed in the same order from the first step on."""

from __future__ import annotations

import contextlib
from typing import Any

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
    with step_in_memory(rows):
        replica(x, t, labels).sum().backward()
    replica.zero_grad(set_to_none=True)


def without_sync(replica: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which gradients stay on the worker: all micro-batches of a step but the last."""
    no_sync = getattr(replica, "no_sync", contextlib.nullcontext)
    context: contextlib.AbstractContextManager[Any] = no_sync()
    return context
