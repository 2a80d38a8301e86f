"""Benchmark of the overhead of Ray: the engine with Ray Train and Ray Data, and in a loop on a tensor.

    python benchmarks/overhead.py --data cifar10

One worker with one thread, streaming CIFAR-10 shards, against the same steps on a tensor in this process
(measured before and after, so that a drifting machine shows). Then the stream alone, its start included: the
first epoch, one more, and eight; beside them PyTorch's DataLoader on decoded arrays and on the PNGs.
"""

from __future__ import annotations

import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from machine import write_row
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cm_ray import recipes
from cm_ray.cluster.data.stream import stream_batches
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import plan_workers
from cm_ray.cluster.training.fit import fit
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.cluster.training.workers import TrainingTask
from cm_ray.command_line.options import run_job
from cm_ray.data.shards.manifest import Manifest, load_all
from cm_ray.data.shards.order import memory_indices
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch, Share
from cm_ray.training.engine import Engine
from cm_ray.training.specification import model_spec


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Settings of the benchmark."""

    data: str = "cifar10"
    """CIFAR-10: its name, a folder of its Parquet files (PNGs), or shards."""
    steps: int = 36
    """Training steps of each way; the first third is not counted."""
    batch_size: int = 64
    """Images per step."""
    channels: int = 32
    """Channels of the network: the smaller, the more an overhead shows."""


def configured(args: Overhead) -> Recipe:
    return override(
        recipes.ct_cifar10(),
        {
            "data.path": args.data,
            "data.cache": "stream",
            "steps": args.steps,
            "batch_size": args.batch_size,
            "log_every": max(1, args.steps // 12),
            "network.channels": args.channels,
            "network.channel_mult": (1, 2),
            "network.blocks": 1,
            "network.attention_resolutions": (),
            "distance": "l2",
            "checkpoint.every": args.steps,
            "evaluation.every": args.steps,
            "cluster.threads": 1,
            "cluster.use_gpu": "no",
        },
    )


def plain_loop(config: Recipe, spec: ModelSpec, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return images/s of the engine on a tensor, without Ray."""
    torch.set_num_threads(1)
    engine = Engine(config, spec)

    def batches() -> Iterator[Batch]:
        for step in itertools.count():
            first = step * config.batch_size
            index = torch.from_numpy(memory_indices(0, len(images), first, first + config.batch_size))
            yield Batch(images[index], labels[index])

    ends = [time.perf_counter() for _ in engine.train(batches())]
    return steady(ends, config.batch_size)


def steady(ends: list[float], batch_size: int) -> float:
    """Return images/s by the median time of the steps after the first third."""
    steps = np.diff(ends[len(ends) // 3 :])
    return batch_size / statistics.median(steps.tolist())


def through_ray(task: TrainingTask) -> float:
    """Return images/s of the engine in a Ray Train worker, streaming through Ray Data."""
    fit(task)
    rows = [row["images_per_s"] for row in task.run.read_metrics() if "images_per_s" in row]
    return statistics.median(rows[len(rows) // 3 :])


def delivered(batches: Iterable[Any], count: int) -> float:
    """Return images/s from the first request to image `count`."""
    started, seen = time.perf_counter(), 0
    for batch in batches:
        images = batch.images if isinstance(batch, Batch) else batch[0]
        seen += len(images)
        if seen >= count:
            break
    return seen / (time.perf_counter() - started)


class PngImages(Dataset[tuple[torch.Tensor, int]]):
    """The data set as a PyTorch user would write it: PNG bytes, decoded one by one."""

    def __init__(self, folder: Path) -> None:
        table = pq.read_table(folder)
        self.pngs = [row["bytes"] for row in table.column("img").to_pylist()]
        self.labels = table.column("label").to_pylist()

    def __len__(self) -> int:
        return len(self.pngs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = np.array(Image.open(io.BytesIO(self.pngs[index])))
        return torch.from_numpy(pixels).permute(2, 0, 1), self.labels[index]


def loaders(args: Overhead, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return images/s of an epoch from PyTorch's DataLoader."""
    arrays = DataLoader(TensorDataset(images, labels), batch_size=512, shuffle=True)
    found = {"dataloader_arrays": delivered(arrays, len(images))}
    if list(Path(args.data).glob("*.parquet")) and not (Path(args.data) / "manifest.json").exists():
        pngs = DataLoader(PngImages(Path(args.data)), batch_size=512, shuffle=True, num_workers=2)
        found["dataloader_pngs"] = delivered(pngs, len(images))
    return found


def streams(shards: Path, manifest: Manifest) -> dict[str, float]:
    """Return images/s of `cluster.stream`, each from its start: the first starts Ray's readers, too."""
    found = {}
    for name, epochs in [("stream_first_epoch", 1), ("stream_an_epoch", 1), ("stream_8_epochs", 8)]:
        stream = stream_batches(shards, manifest, seed=0, batch_size=512, share=Share(), start_step=0)
        found[name] = delivered(stream, epochs * (manifest.count // 512 * 512))
        stream.close()  # type: ignore[attr-defined]
    return found


def measure(args: Overhead) -> None:
    config = configured(args)
    with connected(), tempfile.TemporaryDirectory() as folder:
        shards, manifest = prepare_shards(config.data)
        images, labels = (torch.from_numpy(array) for array in load_all(shards))
        spec = model_spec(config, manifest)
        before = plain_loop(config, spec, images, labels)
        workers = plan_workers(config.cluster, node_resources())
        run = RunDirectory(Path(folder))
        with_ray = through_ray(TrainingTask(config=config, spec=spec, plan=workers, run=run, shards=shards))
        after = plain_loop(config, spec, images, labels)
        row: dict[str, Any] = {
            "plain_images_per_s": [round(before, 1), round(after, 1)],
            "ray_images_per_s": round(with_ray, 1),
            "ratio": round(with_ray / statistics.mean([before, after]), 3),
        }
        speeds = streams(shards, manifest) | loaders(args, images, labels)
        row |= {name: round(value) for name, value in speeds.items()}
    row |= {"images": manifest.count, "steps": args.steps, "batch_size": args.batch_size}
    for name, value in row.items():
        print(f"{name:24} {value}")
    print(f"written to {write_row('overhead', row)}")


if __name__ == "__main__":
    run_job(Overhead, measure, __doc__ or "")
