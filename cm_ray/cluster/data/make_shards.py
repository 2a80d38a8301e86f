"""Makes shards from a source of images on Ray, with one task for each part of the source.

An interrupted call can be resumed, and the shards do not depend on the number of CPUs.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from cm_ray.cluster.runtime.connect import user_error
from cm_ray.data.shard_writer import (
    ROWS_PER_SHARD,
    WORK,
    PartResult,
    finished_part,
    grey_parts,
    make_part,
    merge,
    recipe_of,
)
from cm_ray.data.shards import Manifest, is_shard_folder
from cm_ray.data.source import OnBadImage, Part, Progress, ReadOptions, Source
from cm_ray.errors import UserError
from cm_ray.storage.files import locked, remove


def make_shards(
    source: Source,
    out: Path,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    size: int | None = None,
    on_bad_image: OnBadImage = "raise",
    recipe: str = "",
    progress: Progress | None = None,
) -> Manifest:
    """Write the images of `source` as shards into the folder `out` and return their manifest.

    Ray must be connected. size: images are cropped and resized to that many pixels; None or 0 keeps their
    size. recipe: the result of `recipe_of`, if it is known. progress: is called with the number of finished
    shards and the number of all shards. The same call resumes an interrupted one and returns at once when the
    shards exist; of two calls at the same time, the second one waits. The manifest is written last: a folder
    without one is unfinished. Raises UserError on bad images (unless they are skipped), on a folder that
    holds something else, and when the source changes while it is read.
    """
    if rows_per_shard < 1 or (size or 0) < 0:
        raise UserError(
            f"--rows-per-shard is {rows_per_shard} and --size is {size}; the first must be positive, and the "
            "second must not be negative."
        )
    out = out.resolve()
    options = ReadOptions(size=size or 0, on_bad_image=on_bad_image)
    recipe = recipe or recipe_of(source, rows_per_shard, options.size)
    if done := _finished(out, recipe, options):
        return done
    if out.exists() and not (out / WORK).is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and holds no shards; choose another --out.")
    with locked(out / WORK / "lock"):
        if done := _finished(out, recipe, options):  # the process that held the lock may have made them
            return done
        _clear_other_recipe(out, recipe)
        manifest = _make(source, out, rows_per_shard, recipe, options, progress)
        if recipe_of(source, rows_per_shard, options.size) != recipe:
            raise UserError(f"{source.name} has changed while shards were made of it; repeat the command.")
        manifest.save(out)
        _clean(out, manifest)
    return manifest


def _finished(out: Path, recipe: str, options: ReadOptions) -> Manifest | None:
    """Return the manifest of a finished folder, else None. Raises UserError on shards of another recipe."""
    if not is_shard_folder(out):
        return None
    manifest = Manifest.load(out)
    if manifest.recipe != recipe:
        raise UserError(f"{out} holds shards of another source or other options; choose another --out.")
    if manifest.skipped and options.on_bad_image == "raise":
        raise UserError(
            f"{out} was made without {manifest.skipped} bad images; pass --on-bad-image skip to accept that, "
            "or choose another --out."
        )
    remove(out / WORK)
    return manifest


def _clear_other_recipe(out: Path, recipe: str) -> None:
    """Remove the files of an unfinished call with another source or other options."""
    note = out / WORK / "recipe"
    if note.is_file() and note.read_text() != recipe:
        for leftover in [*out.glob("shard-*.parquet"), *(out / WORK).glob("*.json")]:
            remove(leftover)
    note.write_text(recipe)


def _make(
    source: Source,
    out: Path,
    rows_per_shard: int,
    recipe: str,
    options: ReadOptions,
    progress: Progress | None,
) -> Manifest:
    parts = source.parts(rows_per_shard)
    results = {i: finished_part(out, i, recipe, options) for i in range(len(parts))}
    done = {i: result for i, result in results.items() if result}

    def keep(index: int, result: PartResult) -> None:
        done[index] = result
        if progress:
            progress(len(done), len(parts))

    todo = [i for i in range(len(parts)) if i not in done]
    if done and progress:
        progress(len(done), len(parts))
    _run(parts, todo, out, recipe, options, keep)
    grey = grey_parts([done[i] for i in range(len(parts))])
    _run(parts, grey, out, recipe, replace(options, channels=3), keep)
    ordered = [done[i] for i in range(len(parts))]
    for result in ordered:
        if result.shard and not (out / result.shard.file).is_file():
            raise UserError(
                f"{out / result.shard.file} was written on another node; choose an --out on storage that all "
                "nodes share."
            )
    return merge(source, recipe, ordered)


def _run(
    parts: Sequence[Part],
    todo: Iterable[int],
    out: Path,
    recipe: str,
    options: ReadOptions,
    keep: Callable[[int, PartResult], None],
) -> None:
    """Make the parts with the indices `todo`, as many at a time as there are CPUs.

    After a failure no more tasks are started, running ones are finished (a later call reuses their parts),
    and the error of the part with the lowest index is raised.
    """
    task: Any = ray.remote(num_cpus=1)(make_part)
    waiting = collections.deque(todo)
    running: dict[Any, int] = {}
    errors: dict[int, BaseException] = {}
    most = max(1, int(ray.cluster_resources().get("CPU", 1)))
    while running or (waiting and not errors):
        while waiting and len(running) < most and not errors:
            index = waiting.popleft()
            running[task.remote(parts[index], out, index, recipe, options)] = index
        for reference in ray.wait(list(running), num_returns=1)[0]:
            index = running.pop(reference)
            try:
                keep(index, ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                errors[index] = user_error(error) or error
    if errors:
        raise errors[min(errors)] from None


def _clean(out: Path, manifest: Manifest) -> None:
    """Remove the working folder, and unfinished files of killed tasks."""
    known = {shard.file for shard in manifest.shards}
    for file in [*out.glob(".shard-*.part"), *out.glob("shard-*.parquet")]:
        if file.name not in known:
            remove(file)
    remove(out / WORK)
