"""Processor time of the augmentation of Karras et al. 2022 for an image, on one thread.

Writes a row of benchmarks/results/augmentation.jsonl for each size of images: milliseconds an image of the
random numbers, flips and affine maps, beside the flip alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from machine import write_row

from cm_ray.command_line.options import run_job
from cm_ray.core.augmentation import Augmentation, EDMAugmentation, Flip


@dataclass(frozen=True, kw_only=True)
class AugmentationCost:
    """Settings of the benchmark."""

    sizes: tuple[int, ...] = (32, 64)
    """Pixels per side of the images."""
    images: int = 128
    """Images in a batch."""
    rounds: int = 5
    """Batches; the least time counts."""


def milliseconds_each(augmentation: Augmentation, images: torch.Tensor, rounds: int) -> float:
    """Return the least processor time of an image, in milliseconds."""
    positions, least = torch.arange(len(images)), float("inf")
    for step in range(rounds + 1):
        begun = time.process_time()
        augmentation(images, 0, step, positions)
        least = min(least, time.process_time() - begun) if step else least
    return round(1000 * least / len(images), 4)


def measure(settings: AugmentationCost) -> None:
    """Time each size."""
    torch.set_num_threads(1)
    for size in settings.sizes:
        images = torch.rand(settings.images, 3, size, size)
        flip = milliseconds_each(Flip(), images, settings.rounds)
        edm = milliseconds_each(EDMAugmentation(), images, settings.rounds)
        row = {"size": size, "images": settings.images, "flip_ms": flip, "edm_ms": edm}
        write_row("augmentation", row)
        print(row)


if __name__ == "__main__":
    run_job(AugmentationCost, measure, __doc__ or "")
