"""Makes shards from a source of images on Ray: a task reads a part of the source, another writes a shard.

An interrupted call can be resumed, and the shards do not depend on the number of CPUs.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import ray

from cm_ray.cluster.runtime.connect import user_error
from cm_ray.data.interface.source import Progress, ReadOptions, Source
from cm_ray.data.shards.manifest import Manifest, is_shard_folder
from cm_ray.data.shards.shard_writer import (
    ROWS_PER_SHARD,
    WORK,
    Layout,
    agreement,
    finished_part,
    finished_shard,
    make_part,
    make_shard,
    merge,
    recipe_of,
)
from cm_ray.data.take_survey import survey_of_source
from cm_ray.errors import UserError, setting
from cm_ray.remote.witness import Witness, witnessed
from cm_ray.storage.files import locked, remove

_T = TypeVar("_T")
_AS_THEY_ARE = ReadOptions()
_OUT = setting("out")


def make_shards(
    source: Source,
    out: Path,
    options: ReadOptions = _AS_THEY_ARE,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    recipe: str = "",
    progress: Progress | None = None,
) -> Manifest:
    """Write the images of `source` as shards into the folder `out` and return their manifest.

    Ray must be connected. recipe: the result of `recipe_of`, if it is known. progress: is called with the
    number of finished tasks and of all tasks: parts to read, and shards to write. The same call resumes an
    interrupted one and returns at once when the shards exist; of two calls at the same time, the second one
    waits. The manifest is written last: a folder without one is unfinished. Raises UserError on bad images
    (unless they are skipped), on a folder that holds something else, and when the source changes while it is
    read.
    """
    out = out.resolve()
    recipe = recipe or recipe_of(source, rows_per_shard, options)
    if done := _finished(out, recipe, options):
        return done
    if out.exists() and not (out / WORK).is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and holds no shards; choose another {_OUT}.")
    with locked(out / WORK / "lock"):
        if done := _finished(out, recipe, options):  # the process that held the lock may have made them
            return done
        _clear_other_recipe(out, recipe)
        with witnessed(out / WORK) as seen:
            manifest = _make(source, out, seen, rows_per_shard, recipe, options, progress)
        if recipe_of(source, rows_per_shard, options) != recipe:
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
        raise UserError(f"{out} holds shards of another source or other options; choose another {_OUT}.")
    if manifest.skipped and options.on_bad_image == "raise":
        raise UserError(
            f"{out} was made without {manifest.skipped} bad images; pass {setting('on_bad_image')} skip "
            f"to accept that, or choose another {_OUT}."
        )
    remove(out / WORK)
    return manifest


def _clear_other_recipe(out: Path, recipe: str) -> None:
    """Remove the files of an unfinished call with another source or other options."""
    note = out / WORK / "recipe"
    if note.is_file() and note.read_text() != recipe:
        for leftover in [*out.glob("shard-*.parquet"), *(out / WORK).glob("*.*")]:
            remove(leftover)
    note.write_text(recipe)


def _make(
    source: Source,
    out: Path,
    seen: Witness,
    rows_per_shard: int,
    recipe: str,
    options: ReadOptions,
    progress: Progress | None,
) -> Manifest:
    parts = source.parts(rows_per_shard)
    done = _Done(progress or (lambda done, total: None), 2 * len(parts))
    results = done.with_earlier({i: finished_part(out, i, recipe, options) for i in range(len(parts))})

    def read(indices: Iterable[int], options: ReadOptions) -> None:
        for index, result in _run(make_part, seen, {i: (parts[i], out, i, recipe, options) for i in indices}):
            results[index] = result
            done.add()

    read([i for i in range(len(parts)) if i not in results], options)
    ordered = [results[i] for i in range(len(parts))]
    unlike, agreed = agreement(ordered, options)
    if unlike:
        done.total += len(unlike)
        read(unlike, agreed)
        ordered = [results[i] for i in range(len(parts))]
    layout = Layout.of(source, out, ordered, rows_per_shard)
    count = len(layout.ranges)
    done.total += count - len(parts)
    shards = done.with_earlier({i: finished_shard(out, i, layout) for i in range(count)})
    todo = [i for i in range(count) if i not in shards]
    for index, shard in _run(make_shard, seen, {i: (out, i, layout) for i in todo}):
        shards[index] = shard
        done.add()
    survey = tuple(str(survey_of_source(source, options)).splitlines())
    return merge(source, recipe, ordered, layout, [shards[i] for i in range(count)], options, survey)


class _Done:
    """Count of finished tasks, for a callback."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.done, self.total = progress, 0, total

    def with_earlier(self, found: Mapping[int, _T | None]) -> dict[int, _T]:
        """Return the results that an earlier call has left, which count as done."""
        earlier = {index: result for index, result in found.items() if result is not None}
        if earlier:
            self.add(len(earlier))
        return earlier

    def add(self, tasks: int = 1) -> None:
        """Count finished tasks and tell the callback."""
        self.done += tasks
        self.progress(self.done, self.total)


def _run(
    function: Callable[..., _T], seen: Witness, arguments: Mapping[int, tuple[Any, ...]]
) -> Iterator[tuple[int, _T]]:
    """Call a function in tasks, as many at a time as there are CPUs; yield index and result of each.

    seen: a file of the folder that the tasks write to, which every node has to see. After a failure no more
    tasks are started, running ones are finished (a later call uses their results), and the error of the
    lowest index is raised.
    """
    task: Any = ray.remote(num_cpus=1)(_checked)
    waiting = collections.deque(arguments)
    running: dict[Any, int] = {}
    errors: dict[int, BaseException] = {}
    most = max(1, int(ray.cluster_resources().get("CPU", 1)))
    while running or (waiting and not errors):
        while waiting and len(running) < most and not errors:
            index = waiting.popleft()
            running[task.remote(function, seen, *arguments[index])] = index
        for reference in ray.wait(list(running), num_returns=1)[0]:
            index = running.pop(reference)
            try:
                yield index, ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                errors[index] = user_error(error) or error
    if errors:
        raise errors[min(errors)] from None


def _checked(function: Callable[..., _T], seen: Witness, *arguments: Any) -> _T:
    """Call a function on a node that sees the folder of the shards."""
    seen.check()
    return function(*arguments)


def _clean(out: Path, manifest: Manifest) -> None:
    """Remove the working folder, and unfinished files of killed tasks."""
    known = {shard.file for shard in manifest.shards}
    for file in [*out.glob(".shard-*.part"), *out.glob("shard-*.parquet")]:
        if file.name not in known:
            remove(file)
    remove(out / WORK)
