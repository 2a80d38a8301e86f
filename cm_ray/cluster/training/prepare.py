"""Preparation of the shards that a run reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cm_ray.cluster.data.make_shards import make_shards
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.interface.source import Source
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import Manifest, check_shards, is_shard_folder
from cm_ray.data.shards.shard_options import check_given, check_made
from cm_ray.data.shards.shard_writer import ROWS_PER_SHARD, recipe_of
from cm_ray.data.take_survey import survey_of_shards, survey_of_source
from cm_ray.errors import UserError, setting
from cm_ray.recipes.sections import DataSettings
from cm_ray.runs.console import say, shown
from cm_ray.storage.files import absolute, cache_root


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The shards of some data, for trainings that would otherwise look at all of its files again."""

    data: DataSettings
    folder: Path
    """Folder of the shards."""

    def folder_for(self, data: DataSettings) -> Path | None:
        """Return the folder if it has the images of these settings, else None."""
        same = replace(data, cache=self.data.cache) == self.data
        return self.folder if same else None


def prepare_shards(data: DataSettings, prepared: PreparedData | None = None) -> tuple[Path, Manifest]:
    """Return the folder of shards of the data, and its manifest.

    Shards that do not exist are made in the cache. prepared: shards that this command has already prepared;
    they are taken if they are those of `data`. Raises UserError when the data is not given, is missing or is
    damaged.
    """
    if not data.path:
        raise UserError(
            f"{setting('data.path', 'data')} is empty; set it to a folder or to the name of a data set."
        )
    folder = prepared.folder_for(data) if prepared else None
    given = absolute(data.path)
    check = check_made
    if folder is None and is_shard_folder(given):
        folder, check = given, check_given
        say(f"{survey_of_shards(Manifest.load(folder))}")
    folder = folder or _made(data)
    manifest = Manifest.load(folder)
    check_shards(folder, manifest)
    check(folder, manifest, data)
    return folder, manifest


def _made(data: DataSettings) -> Path:
    """Return the folder in the cache that has the shards of the data, after making them if needed."""
    with shown("byte") as fetched:
        source = open_source(data.path, progress=fetched, options=data.read_options)
    say(f"{survey_of_source(source, data.read_options)}")
    recipe = _recipe(source, data)
    skips = "-skip" if data.on_bad_image == "skip" else ""
    folder = cache_root() / "shards" / f"{source.name}-{recipe[:16]}{skips}"
    with shown("task") as progress:
        make_shards(
            source,
            folder,
            data.read_options,
            recipe=recipe,
            progress=progress,
        )
    return folder


def _recipe(source: Source, options: ReadOptions) -> str:
    with shown("byte") as progress:
        return recipe_of(source, ROWS_PER_SHARD, options, progress)
