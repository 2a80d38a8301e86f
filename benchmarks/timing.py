"""Clocks and counts that the benchmarks of training steps share."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine


def synchronised(device: str | torch.device) -> None:
    """Wait for all that the device has been given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def timed(step: Callable[[], object], device: str | torch.device) -> float:
    """Return the seconds of a call, to the end of what it has the device do."""
    synchronised(device)
    started = time.perf_counter()
    step()
    synchronised(device)
    return time.perf_counter() - started


def matmul_flops(dtype: torch.dtype, device: str | torch.device, size: int) -> float:
    """Return the operations per second of a product of two square matrices of random numbers."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / min(timed(lambda: torch.mm(a, b), device) for _ in range(5))


def random_images(engine: Engine) -> Batch:
    """Return a batch of random uint8 images in the memory of the host, all of class 0; always the same."""
    rows, generator = engine.config.batch_size, torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, *engine.spec.shape), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.zeros(rows, dtype=torch.int64))


def counted_flops(engine: Engine) -> float:
    """Return the operations of a step: convolutions, matrix products and attention.

    Of a plain program's attention where it computes the same: PyTorch does not count its own on CPUs.
    """
    batch = random_images(engine)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        engine.one_step(batch)
    return float(counter.get_total_flops())
