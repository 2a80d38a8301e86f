"""Preparation of the shards that a run reads."""

from __future__ import annotations

from pathlib import Path

from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.data.open_source import open_source
from cm_ray.data.shards import Manifest, check_shards, is_shard_folder
from cm_ray.errors import UserError
from cm_ray.recipes.sections import DataSettings
from cm_ray.runs.console import shown
from cm_ray.storage.files import cache_root


def prepare_shards(data: DataSettings) -> tuple[Path, Manifest]:
    """Return the folder of shards of the data, and its manifest.

    Shards that do not exist are made in the cache. Raises UserError when the data is not given, is missing or
    is damaged.
    """
    if not data.path:
        raise UserError("data.path is empty; set it to a folder or to the name of a data set.")
    folder = Path(data.path).expanduser().absolute()
    if not is_shard_folder(folder):
        with shown("byte") as fetched:
            source = open_source(data.path, progress=fetched, on_bad_image=data.on_bad_image)
        folder = cache_root() / "shards" / f"{source.name}-{source.identity[:12]}-{data.size}"
        if data.on_bad_image == "skip":
            folder = folder.with_name(folder.name + "-skip")
        with shown("shard") as progress:
            make_shards(
                source,
                folder,
                size=data.size,
                on_bad_image=data.on_bad_image,
                progress=progress,
            )
    manifest = Manifest.load(folder)
    check_shards(folder, manifest)
    if data.size and manifest.shape[1:] != (data.size, data.size):
        raise UserError(
            f"{folder} holds images of {manifest.shape[2]}x{manifest.shape[1]} pixels, but data.size is "
            f"{data.size}; make shards of that size with cm-ray shards, or set data.size to 0."
        )
    return folder, manifest
