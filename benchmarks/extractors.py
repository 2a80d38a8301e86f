"""Time and memory of the features of images by each extractor, with random weights.

Writes a row of benchmarks/results/extractors.jsonl for each: seconds an image, the bytes of the weights, and
the counted peak of a batch beyond them.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch
from machine import write_row

from cm_ray.budget.evaluation_memory import extractor_bytes, features_bytes, untrained_extractor
from cm_ray.command_line.options import run_job
from cm_ray.errors import UserError
from cm_ray.recipes import ict_cifar10
from cm_ray.settings.tree import override

_BATCH = 64  # images whose memory is counted: those of one forward pass


@dataclass(frozen=True, kw_only=True)
class Extractors:
    """Settings of the benchmark."""

    names: tuple[str, ...] = ("cifar-resnet56", "inception-2015", "dinov2-vits14", "dinov2-vitl14")
    """Extractors with published weights."""
    images: int = 16
    """Images of 32 x 32 pixels to time; as many others come before."""
    device: str = "cpu"
    """Device of the network."""
    threads: int = 0
    """PyTorch's threads; 0: as many as there are cores."""


def seconds_each(name: str, images: torch.Tensor, device: str) -> float:
    """Return the seconds that the features of an image take. Raises UserError on an unknown name."""
    extractor = untrained_extractor(name)
    if extractor is None:
        raise UserError(f"The extractor {name} has no published network to time.")
    extractor = dataclasses.replace(extractor, network=extractor.network.to(device))
    extractor.features(images).sum().item()
    begun = time.perf_counter()
    extractor.features(images).sum().item()
    return (time.perf_counter() - begun) / len(images)


def measure(settings: Extractors) -> None:
    """Time each extractor."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    images = torch.randint(0, 256, (settings.images, 3, 32, 32), dtype=torch.uint8)
    for name in settings.names:
        row = {
            "extractor": name,
            "device": settings.device,
            "threads": torch.get_num_threads(),
            "seconds_each": round(seconds_each(name, images, settings.device), 5),
            "weights_bytes": extractor_bytes(override(ict_cifar10(), {"evaluation.extractor": name})),
            "batch": _BATCH,
            "batch_bytes": features_bytes(name, (3, 32, 32), _BATCH, settings.device),
        }
        write_row("extractors", row)
        print(row)


if __name__ == "__main__":
    run_job(Extractors, measure, __doc__ or "")
