"""Settings of the command that makes shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Turn images into shards: cm-ray shards /data/photos --out /data/photos-64 --size 64

    SOURCE is the name of a data set (digits, cifar10), a folder or a zip archive of image files (sub-folders
    are classes or splits), or Parquet files as on the Hugging Face hub. The same command goes on after an
    interruption.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """digits, cifar10, or the path of images, of a Parquet file or of a folder of them."""
    out: Path
    """Folder for the shards; on a cluster, one that all nodes share."""
    split: str = ""
    """Split of a data set that has several, such as train, val or test; the one for training if empty."""
    size: int = 0
    """Crop the centre to a square and resize it to this many pixels; 0 takes images as they are."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """Treatment of images that cannot be decoded; skipped ones are counted in the manifest."""
    rows_per_shard: int = 8192
    """Images per file."""

    def __post_init__(self) -> None:
        """Raise UserError, naming the option, on a number that is out of its range."""
        for name, least in {"size": 0, "rows_per_shard": 1}.items():
            if (number := getattr(self, name)) < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {number}.")
