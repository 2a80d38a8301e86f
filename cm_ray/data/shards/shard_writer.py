"""Shards made from the parts of a source: the work on one part, the work on one shard, and the manifest.

Each part is written as sorted runs first (see `sorted_runs`); a shard has rows of all of them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cm_ray.data.interface.agreement import check_same_shape, in_agreement
from cm_ray.data.interface.classes import classes_of
from cm_ray.data.interface.permutation import SEED, KeyRange, KeyStream, Permutation, key_ranges
from cm_ray.data.interface.seen import Seen
from cm_ray.data.interface.source import Batch, Part, Pixels, Progress, ReadOptions, Source
from cm_ray.data.shards.manifest import FORMAT, Manifest, Shape, Shard
from cm_ray.data.shards.sorted_runs import RunFile, RunWriter, write_shuffled, writing_runs
from cm_ray.errors import UserError
from cm_ray.storage.files import read_json, remove, write_json

ROWS_PER_SHARD = 8192
"""Usual number of images of a shard."""
WORK = ".parts"
"""Name of the folder, beside unfinished shards, that holds the results of finished parts and shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """Result of reading one part; kept as JSON until all shards are made."""

    recipe: str
    """See `recipe_of`."""
    runs: tuple[int, ...]
    """Number of images of each sorted run; empty when every image was bad."""
    shape: Shape | None
    """(c, h, w)."""
    first: str
    """Name of its first image in messages."""
    skipped: int
    """Number of bad images that were left out."""
    labels: tuple[tuple[int, int], ...]
    """(label, number of images) of each label that occurs, ascending."""
    bits: int = 0
    """The bits by which samples of more than 8 bits were scaled; 0 when there are none."""
    transparent: int = 0
    """Number of images through which the background is seen."""
    profiles_ignored: int = 0
    """Number of images with a colour profile that is damaged or does not fit."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Contents of the shards, which are known when all parts have been read."""

    shape: Shape
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    files: tuple[RunFile, ...]
    """The runs of all parts, in the order of the source."""
    permutation: Permutation
    ranges: tuple[KeyRange, ...]
    """Keys of the images of each shard."""
    digest: str
    """Digest of all that decides the shards."""

    @classmethod
    def of(cls, source: Source, out: Path, results: Sequence[PartResult], rows_per_shard: int) -> Layout:
        """Return the layout.

        Raises UserError when there is no image, or when images or labels do not fit together.
        """
        shape = _common_shape(source, results)
        labels = sum((Counter(dict(result.labels)) for result in results), Counter[int]())
        classes = classes_of(source.name, source.class_names, labels)
        files = tuple(RunFile(run_file(out, index), result.runs) for index, result in enumerate(results))
        permutation = Permutation(SEED, tuple(sum(result.runs) for result in results))
        content = [[asdict(result) for result in results], rows_per_shard]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        ranges = key_ranges(permutation.keys(), rows_per_shard)
        return cls(
            shape, *classes, tuple(file for file in files if file.runs), permutation, tuple(ranges), digest
        )


def recipe_of(
    source: Source, rows_per_shard: int, options: ReadOptions, progress: Progress | None = None
) -> str:
    """Return the digest of a source's content and of the options that determine its shards.

    progress: see `Source.identity`, which is called.
    """
    decisive = {**asdict(options.read_options), **asdict(options.used(options.bits))}
    for name in ("split", "on_bad_image", "image_column", "label_column"):  # the source follows the others
        del decisive[name]
    content = [FORMAT, source.identity(progress), source.class_names, rows_per_shard, decisive]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def shard_name(index: int) -> str:
    """Return the file name of the shard of part `index`."""
    return f"shard-{index:05d}.parquet"


def run_file(out: Path, index: int) -> Path:
    """Return the file of the sorted runs of part `index`."""
    return out / WORK / f"part-{index:05d}.runs"


def _note(out: Path, file: Path) -> Path:
    """Return the file that says how a file of a part or of a shard was made."""
    return out / WORK / f"{file.stem}.json"


def make_part(part: Part, out: Path, index: int, recipe: str, options: ReadOptions) -> PartResult:
    """Write part `index` as sorted runs beside the shards in `out`, and then its result as JSON.

    Its images get the same channels and the same bits; see `in_agreement`. Raises UserError as `Part.read`.
    """
    result = in_agreement(lambda options: _written(part, out, index, recipe, options), options)
    write_json(_note(out, run_file(out, index)), asdict(result))
    return result


def _written(part: Part, out: Path, index: int, recipe: str, options: ReadOptions) -> PartResult:
    seen = Seen()
    stream = seen.follow(part.read(options))
    batch = next((each for each in stream if len(each.images)), None)
    if batch is None:
        remove(run_file(out, index))
        return PartResult(recipe=recipe, runs=(), shape=None, first="", skipped=seen.skipped, labels=())
    height, width, channels = batch.images.shape[1:]
    shape, first = (channels, height, width), batch.first
    with writing_runs(run_file(out, index), shape, KeyStream(SEED, index)) as writer:
        for each in itertools.chain([batch], stream):
            _write(writer, each, first)
    return PartResult(
        recipe=recipe,
        runs=tuple(writer.runs),
        shape=shape,
        first=first,
        skipped=seen.skipped,
        labels=tuple(sorted(seen.labels.items())),
        bits=seen.bits,
        transparent=seen.transparent,
        profiles_ignored=seen.profiles_ignored,
    )


def _write(writer: RunWriter, batch: Batch, first: str) -> None:
    if not len(batch.images):
        return
    channels, height, width = writer.shape
    check_same_shape(first, (height, width, channels), batch.first, batch.images.shape[1:])
    planes: Pixels = batch.images.transpose(0, 3, 1, 2)
    writer.write(planes, batch.labels)


def finished_part(out: Path, index: int, recipe: str, options: ReadOptions) -> PartResult | None:
    """Return the result of a part that an earlier run has read, or None if the part is still to be read."""
    file = run_file(out, index)
    try:
        content: dict[str, Any] = read_json(_note(out, file))
        runs, shape = tuple(content["runs"]), tuple(content["shape"]) if content["shape"] else None
        labels = tuple((label, count) for label, count in content["labels"])
        result = PartResult(**{**content, "runs": runs, "shape": shape, "labels": labels})
    except (FileNotFoundError, UserError, KeyError, TypeError, ValueError):
        return None
    if result.recipe != recipe or (result.skipped and options.on_bad_image == "raise"):
        return None
    if result.shape and not _has_size(file, RunFile(file, result.runs).size(result.shape)):
        return None
    return result


def make_shard(out: Path, index: int, layout: Layout) -> Shard:
    """Write shard `index`, and then its description as JSON. Raises UserError as `write_shuffled`."""
    file = out / shard_name(index)
    shard = write_shuffled(file, layout.files, layout.shape, layout.ranges[index])
    write_json(_note(out, file), {"layout": layout.digest, "shard": asdict(shard)})
    return shard


def finished_shard(out: Path, index: int, layout: Layout) -> Shard | None:
    """Return the description of a shard that an earlier run has made, or None if it is still to be made."""
    file = out / shard_name(index)
    try:
        content = read_json(_note(out, file))
        shard = Shard(**content["shard"])
        same = content["layout"] == layout.digest
    except (FileNotFoundError, UserError, KeyError, TypeError):
        return None
    return shard if same and _has_size(file, shard.bytes) else None


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def agreement(results: Sequence[PartResult], options: ReadOptions) -> tuple[list[int], ReadOptions]:
    """Return the indices of parts to read again, so that all get the same channels and bits, and the options.

    Grey parts are read again in colour where there are colour parts, and parts whose samples use fewer bits
    than those of another part are scaled by its bits.
    """
    channels = [result.shape[0] if result.shape else 0 for result in results]
    most, deepest = max(channels, default=0), max((result.bits for result in results), default=0)
    unlike = [
        index
        for index, result in enumerate(results)
        if 0 < channels[index] < most or 0 < result.bits < deepest
    ]
    channels_of_all = options.channels or (3 if most == 3 else 0)
    return unlike, replace(options, channels=channels_of_all, bits=max(options.bits, deepest))


def merge(
    source: Source,
    recipe: str,
    results: Sequence[PartResult],
    layout: Layout,
    shards: Sequence[Shard],
    options: ReadOptions,
    survey: tuple[str, ...],
) -> Manifest:
    """Return the manifest of all shards. survey: what was understood of the source."""
    return Manifest(
        shape=layout.shape,
        class_names=layout.class_names,
        class_counts=layout.class_counts,
        source=source.name,
        recipe=recipe,
        skipped=sum(result.skipped for result in results),
        shards=tuple(shards),
        permutation=layout.permutation,
        reading=options.used(max(result.bits for result in results)),
        transparent=sum(result.transparent for result in results),
        profiles_ignored=sum(result.profiles_ignored for result in results),
        survey=survey,
    )


def _common_shape(source: Source, results: Sequence[PartResult]) -> Shape:
    full = [(result.first, result.shape) for result in results if result.shape]
    if not full:
        skipped = sum(result.skipped for result in results)
        raise UserError(f"{source.name} has no readable image ({skipped} were skipped); give other data.")
    first, shape = full[0]
    for name, other in full:
        check_same_shape(first, _hwc(shape), name, _hwc(other))
    return shape


def _hwc(shape: Shape) -> Shape:
    return shape[1], shape[2], shape[0]
