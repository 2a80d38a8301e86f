"""Benchmark of what a derivative in forward mode costs: a step of each method beside one of ECT.

    python benchmarks/derivative.py                                      # ADM at 32x32, 7.66 M parameters
    python benchmarks/derivative.py --network digits --batch-size 128    # the network of the digits
    python benchmarks/derivative.py --network cifar10 --batch-size 4     # DDPM++, 55.7 M parameters
    python benchmarks/derivative.py --threads 1                          # on a machine that is shared

ECT has one pass of the target; sct, scd and meanflow have a derivative of it in its place, shortcut has two
passes, and scd has a pass of the teacher as well. All methods train the same network, in turn, so that a
machine that is shared treats them alike; ratios are those of processor seconds, round by round. Memory is the
peak of two steps in a process of their own.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from machine import write_row
from timing import random_images, timed

from cm_ray import recipes
from cm_ray.budget.measured_memory import measured_memory
from cm_ray.command_line.options import run_job
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import override
from cm_ray.training.engine import Engine

Method = Literal["ect", "sct", "scd", "meanflow", "shortcut"]
NETWORKS: dict[str, dict[str, Any]] = {
    "small": {
        "network": "adm",
        "network.channels": 64,
        "network.channel_mult": (1, 2, 2),
        "network.blocks": 2,
        "network.head_channels": 0,
        "network.attention_resolutions": (16,),
    },
    "cifar10": {"network": "ddpm++"},
    "digits": {},
}


@dataclass(frozen=True, kw_only=True)
class Derivative:
    """Settings of the benchmark."""

    network: Literal["small", "cifar10", "digits"] = "small"
    """small: ADM at 32x32; cifar10: EDM's DDPM++ at 32x32; digits: the network of the digits at 8x8."""
    methods: tuple[Method, ...] = get_args(Method)
    """Methods beside ect, which is always timed."""
    batch_size: int = 16
    """Images per step."""
    rounds: int = 5
    """Steps that are timed of each method; one more comes before."""
    threads: int = 0
    """PyTorch's threads; 0: as many as there are cores."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the steps."""


@dataclass
class Timed:
    """A method's engine and how long its steps took."""

    method: Method
    engine: Engine
    seconds: list[float] = dataclasses.field(default_factory=list)
    processor_seconds: list[float] = dataclasses.field(default_factory=list)


def configured(args: Derivative, method: Method) -> Recipe:
    """Return the recipe of a method for the network, without dropout, in float32."""
    changes = {
        "batch_size": args.batch_size,
        "accumulate": 1,
        "precision": "float32",
        "network.dropout": 0.0,
        "network.conditional": False,
        "augmentation": "none",
    }
    if method == "scd":
        changes["teacher.model"] = "given"
    return override(recipes.named(f"{method}_digits"), NETWORKS[args.network] | changes)


def entry_of(args: Derivative, method: Method) -> Timed:
    """Return a method, ready for its steps."""
    config = configured(args, method)
    shape = (1, 8, 8) if args.network == "digits" else (3, 32, 32)
    spec = ModelSpec(network=config.network, diffusion=config.diffusion, shape=shape)
    denoiser = dataclasses.replace(config.diffusion, boundary="none")
    teacher = Model(dataclasses.replace(spec, diffusion=denoiser)) if method == "scd" else None
    return Timed(method, Engine(config, spec, device=args.device, teacher=teacher))


def compared(args: Derivative) -> list[dict[str, Any]]:
    """Time the methods in turn; return a row each."""
    entries = [entry_of(args, method) for method in dict.fromkeys(("ect", *args.methods))]
    batches = [random_images(entry.engine) for entry in entries]
    for round_number in range(args.rounds + 1):
        for entry, batch in zip(entries, batches, strict=True):
            started = time.process_time()
            seconds = timed(lambda entry=entry, batch=batch: entry.engine.one_step(batch), args.device)
            if round_number:
                entry.seconds.append(seconds)
                entry.processor_seconds.append(time.process_time() - started)
    rows = [row(args, entry, entries[0]) for entry in entries]
    return [{**each, "memory_over_ect": round(each["peak_mib"] / rows[0]["peak_mib"], 2)} for each in rows]


def row(args: Derivative, entry: Timed, ect: Timed) -> dict[str, Any]:
    """Return what a method came to, beside ECT."""
    pairs = zip(entry.processor_seconds, ect.processor_seconds, strict=True)
    config, spec = entry.engine.config, entry.engine.spec
    peak = measured_memory(config, spec, args.batch_size, args.device)
    return {
        **dataclasses.asdict(args),
        "methods": None,
        "method": entry.method,
        "threads": torch.get_num_threads(),
        "parameters": sum(each.numel() for each in entry.engine.student.parameters()),
        "seconds": round(statistics.median(entry.seconds), 4),
        "processor_seconds": round(statistics.median(entry.processor_seconds), 4),
        "times_ect": round(statistics.median(ours / theirs for ours, theirs in pairs), 3),
        "peak_mib": round(peak / 2**20),
    }


def measure(args: Derivative) -> None:
    """Print and keep a row for every method."""
    if args.threads:
        torch.set_num_threads(args.threads)
    for made in compared(args):
        made.pop("methods")
        print("  ".join(f"{name} {made[name]}" for name in list(made) if name not in {"device", "rounds"}))
        path = write_row("derivative", made)
    print(f"written to {path}")


if __name__ == "__main__":
    run_job(Derivative, measure, __doc__ or "")
