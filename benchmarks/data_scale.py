"""Benchmark of data at the size of ImageNet: shards of synthetic images on disk, and reading them.

    python benchmarks/data_scale.py --folder /data/scale --images 1281167

Files like those of downsampled ImageNet are written first: .npz, uncompressed, sorted by class. Of them
shards are made, in memory mode only if the images fit twice into the memory that is free. A row tells speeds,
the time to the first batch from the start of an epoch and from its middle, the classes in a batch beside what
random draws would give, and the files that the same command opens when it is repeated. The folder needs twice
the bytes of the images, and is not removed: the same command measures reading again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import write_row

from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.cluster.data.stream import batches
from cm_ray.cluster.runtime.connect import connected
from cm_ray.command_line.options import run_job
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import Manifest
from cm_ray.training.batch import Share


@dataclass(frozen=True, kw_only=True)
class DataScale:
    """Settings of the benchmark."""

    folder: str
    """Folder of the synthetic images and of their shards."""
    images: int = 1_281_167
    """Images in all; the default is that of ImageNet."""
    size: int = 64
    """Pixels of a side."""
    classes: int = 1000
    """Classes, of which each has as many images as the others."""
    files: int = 40
    """Files of the source."""
    batch_size: int = 2048
    """Images in a batch."""
    read: int = 200_000
    """Images, at most, by which the speed of each mode is measured."""


class Peak(threading.Thread):
    """Watches the memory of this process and of all its children, which Ray's processes are.

    Shared pages, of which Ray's store of objects is made, are not counted.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver = self.all = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Look twice a second."""
        me = psutil.Process()
        while True:
            own = private_bytes(me)
            self.driver = max(self.driver, own)
            self.all = max(self.all, own + sum(map(private_bytes, me.children(recursive=True))))
            if self._ended.wait(0.5):
                return

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()


def private_bytes(process: psutil.Process) -> int:
    """Return the bytes of a process that it does not share; 0 if it has ended."""
    with contextlib.suppress(psutil.Error):
        memory = process.memory_info()
        return int(memory.rss - getattr(memory, "shared", 0))
    return 0


class Opened:
    """Counts the files below a folder that this process opens, while it is on; hooks cannot be removed."""

    def __init__(self, folder: Path) -> None:
        self.below, self.on, self.count = str(folder), False, 0
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and str(arguments[0]).startswith(self.below):
            self.count += 1


def write_source(args: DataScale, folder: Path) -> None:
    """Write the files that are not there yet: random pixels, all files sorted by class as one."""
    folder.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, args.images, args.files + 1).astype(int)
    for index in range(args.files):
        path = folder / f"images_{index:04d}.npz"
        if path.is_file():
            continue
        first, last = bounds[index : index + 2]
        shape = (last - first, args.size, args.size, 3)
        pixels = np.random.default_rng(index).integers(0, 256, shape, np.uint8)
        labels = np.arange(first, last) * args.classes // args.images
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, images=pixels, labels=labels)
        path.with_suffix(".part").rename(path)


def expected_classes(classes: int, draws: int) -> float:
    """Return the expected number of different classes in random draws with replacement."""
    return classes * (1 - (1 - 1 / classes) ** draws)


def reading(args: DataScale, shards: Path, manifest: Manifest, cache: str) -> dict[str, Any]:
    """Return the times to the first batch, and images/s after it, from the start and from the middle."""
    steps = manifest.count // args.batch_size
    row: dict[str, Any] = {}
    for name, start in [("first_batch_s", 0), ("resumed_batch_s", steps // 2)]:
        begun = time.perf_counter()
        stream = batches(
            shards,
            manifest,
            cache=cache,
            seed=0,
            batch_size=args.batch_size,
            share=Share(),
            start_step=start,
        )
        labels = next(stream).labels
        row[name] = round(time.perf_counter() - begun, 2)
        if start == 0:
            row["classes_in_batch"] = len(labels.unique())
            row["images_per_s"] = round(speed(stream, min(args.read, manifest.count), args.batch_size))
        stream.close()  # type: ignore[attr-defined]
        if cache == "memory":
            return row  # its start at any step reads all images once
    return row


def speed(stream: Iterator[Any], count: int, batch_size: int) -> float:
    """Return images/s of the next batches, which hold at least `count` images."""
    begun, steps = time.perf_counter(), -(-count // batch_size)
    for _ in range(steps):
        next(stream)
    return steps * batch_size / (time.perf_counter() - begun)


def made(source: Path, shards: Path) -> tuple[Manifest, float]:
    """Make shards, or find that they are there; return their manifest and the seconds."""
    begun = time.perf_counter()
    manifest = make_shards(open_source(str(source)), shards)
    return manifest, time.perf_counter() - begun


def measure(args: DataScale) -> None:
    """Write the source, make shards of it, read them, and append a row."""
    source, shards = Path(args.folder).absolute() / "source", Path(args.folder).absolute() / "shards"
    begun = time.perf_counter()
    write_source(args, source)
    print(f"source of {args.images} images written in {time.perf_counter() - begun:.0f} s")
    row: dict[str, Any] = {"images": args.images, "size": args.size, "batch_size": args.batch_size}
    with connected(), Peak() as peak:
        there = (shards / "manifest.json").is_file()
        manifest, seconds = made(source, shards)
        row["shards_images_per_s"] = None if there else round(args.images / seconds)
        row["shards_peak_mib"] = [peak.driver >> 20, peak.all >> 20]
        print(row)
        opened = Opened(source.parent)
        opened.on = True
        row["repeated_s"] = round(made(source, shards)[1], 2)
        opened.on = False
        row |= {"repeated_opens": opened.count, "files": args.files + len(manifest.shards)}
        row["classes_expected"] = round(expected_classes(args.classes, args.batch_size))
        row["stream"] = reading(args, shards, manifest, "stream")
        print(row)
        fits = 2 * manifest.pixel_bytes < psutil.virtual_memory().available
        row["memory"] = reading(args, shards, manifest, "memory") if fits else None
        row["peak_mib"] = [peak.driver >> 20, peak.all >> 20]
    for name, value in row.items():
        print(f"{name:24} {value}")
    print(f"written to {write_row('data_scale', row)}")


if __name__ == "__main__":
    run_job(DataScale, measure, __doc__ or "")
