"""Makes shards out of a source on Ray: a task per part, resumable, the same whatever the parallelism."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from cm_ray.cluster.runtime.connect import user_error
from cm_ray.data.shard_writer import (
    WORK,
    PartResult,
    finished_part,
    grey_parts,
    make_part,
    merge,
    recipe_of,
)
from cm_ray.data.shards import Manifest, is_shard_folder
from cm_ray.data.source import OnBadImage, Part, ReadOptions, Source
from cm_ray.errors import UserError
from cm_ray.storage.files import locked, remove

Progress = Callable[[int, int], None]


def make_shards(
    source: Source,
    out: Path,
    *,
    rows_per_shard: int = 8192,
    size: int | None = None,
    on_bad_image: OnBadImage = "raise",
    progress: Progress | None = None,
) -> Manifest:
    """Write `source` as shards into the folder `out` and return their manifest. Ray must be connected.

    `size` crops and resizes to that many pixels; None or 0 takes images as they are. `progress` is called
    with shards done and shards in all. The same call goes on where an earlier one was killed, and returns
    at once where one was finished; of two at the same time, the second waits. The manifest is written
    last: without it, a folder is not finished. Raises UserError on bad images (unless skipped) and on an
    `out` that holds something else.
    """
    if rows_per_shard < 1 or (size or 0) < 0:
        raise UserError(f"--rows-per-shard {rows_per_shard} and --size {size} must be positive.")
    out = out.resolve()
    options = ReadOptions(size=size or 0, on_bad_image=on_bad_image)
    recipe = recipe_of(source, rows_per_shard, options.size)
    if done := _finished(out, recipe, options):
        return done
    if out.exists() and not (out / WORK).is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and holds no shards; choose another --out.")
    with locked(out / WORK / "lock"):
        if done := _finished(out, recipe, options):  # by the one that held the lock
            return done
        _clear_other_recipe(out, recipe)
        manifest = _make(source, out, rows_per_shard, recipe, options, progress)
        manifest.save(out)
        _clean(out, manifest)
    return manifest


def _finished(out: Path, recipe: str, options: ReadOptions) -> Manifest | None:
    """Return the manifest of a finished folder. Raises UserError when it is not of this recipe."""
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
    """Remove what an unfinished run with another source or other options has left."""
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
                f"{out / result.shard.file} was written on another node; "
                "choose an --out that all nodes share."
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
    """Make the parts `todo`, as many at a time as there are CPUs.

    On a failure no more are started, those under way are finished (a resume finds them), and the error of
    the first part in order is raised.
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
    """Remove the notes of the work, and files that killed tasks have left."""
    known = {shard.file for shard in manifest.shards}
    for file in [*out.glob(".shard-*.part"), *out.glob("shard-*.parquet")]:
        if file.name not in known:
            remove(file)
    remove(out / WORK)
