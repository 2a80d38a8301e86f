"""Settings of the command that makes shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import require


@dataclass(frozen=True, kw_only=True)
class Shards(ReadOptions):
    """Turn images into shards: cm-ray shards /data/photos --out /data/photos-64 --size 64

    SOURCE is the name of a data set (digits, cifar10), a folder, a zip or a tar archive of image files
    (sub-folders are classes or splits), Parquet files as on the Hugging Face hub, or archives of WebDataset.
    The same command goes on after an interruption.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """digits, cifar10, or the path of images, of a Parquet file or of a folder of them."""
    out: Path
    """Folder for the shards; on a cluster, one that all nodes share. On one machine, an address, too."""
    rows_per_shard: int = 8192
    """Images per file."""

    def __post_init__(self) -> None:
        """Raise SettingError, naming the option, on a value that is not allowed."""
        ReadOptions.__post_init__(self)
        rows = self.rows_per_shard
        require(rows >= 1, "rows_per_shard", f"must be at least 1, not {rows}")
