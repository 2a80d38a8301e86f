"""Turn images into shards.   python jobs/make_shards.py cifar10 --out data/cifar10

SOURCE is the name of a data set (digits, cifar10), a folder of image files (sub-folders are classes), or
Parquet files as on the Hugging Face hub. Run the same command again to go on after an interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.cluster.runtime.connect import connected
from cm_ray.command_line.options import run_job
from cm_ray.data.open_source import open_source
from cm_ray.runs.console import shown


@dataclass(frozen=True, kw_only=True)
class MakeShards:
    """Which images, and where to."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """digits, cifar10, or the path of a folder of images, a Parquet file or a folder of them."""
    out: Path
    """Folder for the shards; on a cluster, one that all nodes share."""
    split: str = "train"
    """Which split of a data set that has some."""
    size: int = 0
    """Crop the centre to a square and resize it to this many pixels; 0 takes images as they are."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """What to do with an image that cannot be decoded; skipped ones are counted in the manifest."""
    rows_per_shard: int = 8192
    """Images per file."""


def make(args: MakeShards) -> None:
    """Make the shards and say what came out."""
    with shown("byte") as fetched, shown("shard") as progress:
        source = open_source(args.source, args.split, fetched)  # its errors need not wait for Ray
        with connected():
            manifest = make_shards(
                source,
                args.out,
                rows_per_shard=args.rows_per_shard,
                size=args.size,
                on_bad_image=args.on_bad_image,
                progress=progress,
            )
    channels, height, width = manifest.shape
    skipped = f", {manifest.skipped} bad ones skipped" if manifest.skipped else ""
    print(
        f"{args.out}: {manifest.count} images of {width}x{height}, {channels} channels, "
        f"{manifest.classes} classes, {len(manifest.shards)} shards{skipped}; "
        f"fingerprint {manifest.fingerprint[:16]}"
    )


if __name__ == "__main__":
    run_job(MakeShards, make, __doc__ or "")
