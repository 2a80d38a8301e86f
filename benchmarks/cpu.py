"""Benchmark of two questions of training on CPUs: the layout of group normalisation, and workers or threads.

    python benchmarks/cpu.py
    python benchmarks/cpu.py --sections normalisation

normalisation: PyTorch's group normalisation, modulation and SiLU in float32, forwards and backwards, on
images with channels first, last, and last by way of a copy with channels first, and this project's fused
operation, which serves bfloat16. workers: steps of a small ADM at 32x32 by one process with two threads, and
by two processes with a thread each, whose gradients DistributedDataParallel averages by gloo. All take turns
in one run; where the machine is shared, processor seconds count. Rows go to results/cpu.jsonl.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from machine import write_row
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from train_step import Case, configured

from cm_ray.networks.model import ModelSpec
from cm_ray.networks.normalisation import GroupNorm
from cm_ray.training.batch import Batch, Share
from cm_ray.training.engine import Engine

SHAPES = ((16, 64, 32), (16, 128, 32), (16, 128, 16))
"""Images, channels and pixels a side of group normalisations."""
Section = Literal["normalisation", "workers"]


@dataclass(frozen=True, kw_only=True)
class CPU:
    """Settings of the benchmark."""

    sections: tuple[Section, ...] = ("normalisation", "workers")
    """A case that is timed."""
    rounds: int = 8
    """Turns of each way."""
    batch_size: int = 16
    """Images of a step, over all workers."""


def plain(norm: GroupNorm, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
    """Return group normalisation by PyTorch's kernel, modulated, with SiLU."""
    scale, shift = modulation
    return functional.silu(torch.addcmul(shift, nn.GroupNorm.forward(norm, x), 1 + scale))


def copied(norm: GroupNorm, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
    """Return the same by way of a copy with channels first."""
    return plain(norm, x.contiguous(), modulation).contiguous(memory_format=torch.channels_last)


def fused(norm: GroupNorm, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
    """Return the same by the operation that serves bfloat16."""
    return norm._fused(x, modulation, True)


def normalisation(args: CPU) -> None:
    """Write a row for each shape, of the fastest turn of each way, on one thread."""
    torch.set_num_threads(1)
    for images, channels, side in SHAPES:
        first, gradient = (torch.randn(images, channels, side, side) for _ in range(2))
        last, last_gradient = (x.to(memory_format=torch.channels_last) for x in (first, gradient))
        modulation = (torch.randn(images, channels, 1, 1), torch.randn(images, channels, 1, 1))
        norm = GroupNorm(32, channels)
        ways: dict[str, tuple[Callable[..., Tensor], Tensor, Tensor]] = {
            "first": (plain, first, gradient),
            "last": (plain, last, last_gradient),
            "copied": (copied, last, last_gradient),
            "fused": (fused, last, last_gradient),
        }
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(args.rounds):
            for name, (compute, x, g) in ways.items():
                started = time.process_time()
                compute(norm, x.detach().requires_grad_(), modulation).backward(g)
                best[name] = min(best[name], time.process_time() - started)
        row: dict[str, Any] = {"section": "normalisation", "shape": [images, channels, side, side]}
        row |= {f"{name}_ms": round(1e3 * seconds, 3) for name, seconds in best.items()}
        row |= {f"{name}_over_last": round(best[name] / best["last"], 3) for name in best if name != "last"}
        report(row)


def workers(args: CPU) -> None:
    """Write a row with what a step takes one process with two threads, and two with one."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.Manager() as manager:
        times = manager.dict()
        multiprocessing.spawn(take_turns, (folder, args, times), nprocs=3)
        one, first, second = (list(times[rank]) for rank in range(3))
    two = [(max(a[0], b[0]), a[1] + b[1]) for a, b in zip(first, second, strict=True)]
    row: dict[str, Any] = {"section": "workers", "batch_size": args.batch_size, "rounds": args.rounds}
    for name, found in (("one_of_two_threads", one), ("two_of_one_thread", two)):
        row[f"{name}_s"] = round(statistics.median(wall for wall, _ in found), 4)
        row[f"{name}_processor_s"] = round(statistics.median(used for _, used in found), 4)
    ratios = [(b[0] / a[0], b[1] / a[1]) for a, b in zip(one, two, strict=True)]
    row["two_over_one"] = round(statistics.median(wall for wall, _ in ratios), 3)
    row["two_over_one_processor"] = round(statistics.median(used for _, used in ratios), 3)
    report(row)


def take_turns(rank: int, folder: str, args: CPU, times: Any) -> None:
    """Take steps: process 0 alone with two threads, then 1 and 2 together with one each, in every round."""
    torch.set_num_threads(1 if rank else 2)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    pair = distributed.new_group([1, 2])
    case = Case(
        network="small",
        method="ct",
        precision="float32",
        compiled=False,
        batch_size=args.batch_size,
        device="cpu",
    )
    config = configured(case)
    spec = ModelSpec(network=config.network, diffusion=config.diffusion, shape=(3, 32, 32))
    share = Share(rank - 1, 2) if rank else Share()
    cluster = dataclasses.replace(config.cluster, num_workers=share.world)

    def wrap(module: nn.Module) -> nn.Module:
        return DistributedDataParallel(module, process_group=pair, gradient_as_bucket_view=True)

    engine = Engine(
        dataclasses.replace(config, cluster=cluster), spec, share=share, wrap=wrap if rank else None
    )
    rows = args.batch_size // share.world
    batch = Batch(torch.zeros(rows, 3, 32, 32, dtype=torch.uint8), torch.zeros(rows, dtype=torch.int64))
    found = []
    for _ in range(args.rounds + 1):
        for turn in ((0,), (1, 2)):
            distributed.barrier()
            if rank in turn:
                started, used = time.perf_counter(), time.process_time()
                engine.one_step(batch)
                found.append((time.perf_counter() - started, time.process_time() - used))
    times[rank] = found[1:]
    distributed.destroy_process_group()


def report(row: dict[str, Any]) -> None:
    """Print a row and keep it."""
    for name, value in row.items():
        print(f"    {name:32} {value}")
    print(f"written to {write_row('cpu', row)}", flush=True)


def measure(args: CPU) -> None:
    """Time the sections."""
    for section in args.sections:
        {"normalisation": normalisation, "workers": workers}[section](args)


if __name__ == "__main__":
    from cm_ray.command_line.options import run_job

    run_job(CPU, measure, __doc__ or "")
