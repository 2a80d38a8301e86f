"""Time of a training step of EDM2's U-Net beside that of ADM with as many parameters.

    python benchmarks/edm2_step.py              # one thread, float32, 16 images of 32x32
    python benchmarks/edm2_step.py --threads 0  # all cores

Both train a diffusion model at 7.6 M parameters: ADM as in `train_step.py` (64 channels, levels 1, 2, 2, two
blocks, attention at 16), EDM2 with 68 channels and otherwise the same. Steps are taken in turn, forwards,
backwards, optimizer and averages; processor seconds are those of the process, which other programs change
least.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from machine import write_row
from timing import counted_flops, random_images, timed
from train_step import SMALL

from cm_ray import recipes
from cm_ray.command_line.options import run_job
from cm_ray.networks.model import ModelSpec
from cm_ray.settings.tree import override
from cm_ray.training.engine import Engine

_EDM2 = {
    "network": "edm2",
    "network.channels": 68,
    "network.channel_mult": (1, 2, 2),
    "network.blocks": 2,
    "network.attention_resolutions": (16,),
    "network.head_channels": 0,
}
NETWORKS: dict[str, dict[str, Any]] = {"adm": SMALL, "edm2": _EDM2}


@dataclass(frozen=True, kw_only=True)
class EDM2Step:
    """Settings of the benchmark."""

    batch_size: int = 16
    """Images per step."""
    rounds: int = 5
    """Steps that are timed of each network; one more comes before."""
    threads: int = 1
    """PyTorch's threads; 0: as many as there are cores."""


def engine_of(network: str, batch_size: int) -> Engine:
    """Return the engine of a diffusion model of colour images of 32x32."""
    changes = {"batch_size": batch_size, "precision": "float32", "averages": "power"}
    changes |= {"network.conditional": False, "network.dropout": 0.0}
    recipe = override(recipes.edm_cifar10(), NETWORKS[network] | changes)
    spec = ModelSpec(network=recipe.network, diffusion=recipe.diffusion, shape=(3, 32, 32))
    return Engine(recipe, spec)


def measure(args: EDM2Step) -> None:
    """Print and keep a row for each network."""
    if args.threads:
        torch.set_num_threads(args.threads)
    engines = {network: engine_of(network, args.batch_size) for network in NETWORKS}
    wall: dict[str, list[float]] = {network: [] for network in engines}
    processor: dict[str, list[float]] = {network: [] for network in engines}
    for turn in range(args.rounds + 1):
        for network, engine in engines.items():
            batch, started = random_images(engine), time.process_time()
            seconds = timed(lambda engine=engine, batch=batch: engine.one_step(batch), "cpu")
            if turn:
                wall[network].append(seconds)
                processor[network].append(time.process_time() - started)
    for network, engine in engines.items():
        ratios = [a / b for a, b in zip(processor[network], processor["adm"], strict=True)]
        row = {
            "network": network,
            "parameters": sum(p.numel() for p in engine.student.parameters()),
            "batch_size": args.batch_size,
            "threads": torch.get_num_threads(),
            "rounds": args.rounds,
            "seconds": round(min(wall[network]), 4),
            "processor_seconds": round(min(processor[network]), 4),
            "times_adm": round(statistics.median(ratios), 3),
            "tflop": round(counted_flops(engine) / 1e12, 4),
        }
        print(row)
        path = write_row("edm2_step", row)
    print(f"written to {path}")


if __name__ == "__main__":
    run_job(EDM2Step, measure, __doc__ or "")
