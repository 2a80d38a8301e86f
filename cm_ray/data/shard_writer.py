"""Shards made from the parts of a source: the work on one part, and the merge of all results."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cm_ray.data.classes import classes_of, count_labels
from cm_ray.data.images import check_same_shape
from cm_ray.data.shards import FORMAT, Manifest, Shape, Shard, ShardWriter, writing_shard
from cm_ray.data.source import Batch, MixedChannelsError, Part, Pixels, Progress, ReadOptions, Source
from cm_ray.errors import UserError
from cm_ray.storage.files import read_json, remove, write_json

ROWS_PER_SHARD = 8192
"""Usual number of images of a shard."""
WORK = ".parts"
"""Name of the folder, beside unfinished shards, that holds the results of finished parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """Result of making one part; kept as JSON beside the shards until all parts are made."""

    recipe: str
    """See `recipe_of`."""
    shard: Shard | None
    """The shard that was written; None when every image was bad."""
    shape: Shape | None
    """(c, h, w)."""
    first: str
    """Name of its first image in messages."""
    skipped: int
    """Number of bad images that were left out."""
    labels: tuple[tuple[int, int], ...]
    """(label, number of images) of each label that occurs, ascending."""


def recipe_of(source: Source, rows_per_shard: int, size: int, progress: Progress | None = None) -> str:
    """Return the digest of a source's content and of the options that determine its shards.

    progress: see `Source.identity`, which is called.
    """
    content = [FORMAT, source.identity(progress), source.class_names, rows_per_shard, size]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def shard_name(index: int) -> str:
    """Return the file name of the shard of part `index`."""
    return f"shard-{index:05d}.parquet"


def _result_file(out: Path, index: int) -> Path:
    return out / WORK / f"{index:05d}.json"


def make_part(part: Part, out: Path, index: int, recipe: str, options: ReadOptions) -> PartResult:
    """Write part `index` as a shard in `out`, and then its result as JSON.

    In a part of grey and colour images, all become colour images. Raises UserError as `Part.read`.
    """
    try:
        result = _written(part, out / shard_name(index), recipe, options)
    except MixedChannelsError:
        result = _written(part, out / shard_name(index), recipe, replace(options, channels=3))
    write_json(_result_file(out, index), asdict(result))
    return result


def _written(part: Part, path: Path, recipe: str, options: ReadOptions) -> PartResult:
    stream = part.read(options)
    skipped = 0
    for batch in stream:
        skipped += batch.skipped
        if len(batch.images):
            break
    else:
        remove(path)
        return PartResult(recipe=recipe, shard=None, shape=None, first="", skipped=skipped, labels=())
    height, width, channels = batch.images.shape[1:]
    shape, first, labels = (channels, height, width), batch.first, count_labels(batch.labels)
    with writing_shard(path, shape) as writer:
        _write(writer, batch, first)
        for batch in stream:
            skipped += batch.skipped
            labels += count_labels(batch.labels)
            _write(writer, batch, first)
    return PartResult(
        recipe=recipe,
        shard=writer.shard,
        shape=shape,
        first=first,
        skipped=skipped,
        labels=tuple(sorted(labels.items())),
    )


def _write(writer: ShardWriter, batch: Batch, first: str) -> None:
    if not len(batch.images):
        return
    channels, height, width = writer.shape
    check_same_shape(first, (height, width, channels), batch.first, batch.images.shape[1:])
    planes: Pixels = batch.images.transpose(0, 3, 1, 2)
    writer.write(planes, batch.labels)


def finished_part(out: Path, index: int, recipe: str, options: ReadOptions) -> PartResult | None:
    """Return the result of a part that an earlier run has made, or None if the part is still to be made."""
    try:
        content: dict[str, Any] = read_json(_result_file(out, index))
        shard = Shard(**content["shard"]) if content["shard"] else None
        shape = tuple(content["shape"]) if content["shape"] else None
        labels = tuple((label, count) for label, count in content["labels"])
        result = PartResult(**{**content, "shard": shard, "shape": shape, "labels": labels})
    except (FileNotFoundError, UserError, KeyError, TypeError, ValueError):
        return None
    if result.recipe != recipe or (result.skipped and options.on_bad_image == "raise"):
        return None
    if shard is not None:
        path = out / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            return None
    return result


def grey_parts(results: Sequence[PartResult]) -> list[int]:
    """Return the indices of parts to make again in colour: the grey ones, if there are colour parts."""
    channels = [result.shape[0] if result.shape else 0 for result in results]
    return [i for i, count in enumerate(channels) if count == 1] if 3 in channels else []


def merge(source: Source, recipe: str, results: Sequence[PartResult]) -> Manifest:
    """Return the manifest of all parts. Raises UserError when they do not fit or hold no image."""
    full = [result for result in results if result.shard and result.shape]
    skipped = sum(result.skipped for result in results)
    if not full:
        raise UserError(f"{source.name} has no readable image ({skipped} were skipped); give other data.")
    shapes = [_hwc(result.shape) for result in full if result.shape]
    for result, shape in zip(full, shapes, strict=True):
        check_same_shape(full[0].first, shapes[0], result.first, shape)
    assert full[0].shape is not None
    labels = sum((Counter(dict(result.labels)) for result in full), Counter[int]())
    names, counts = classes_of(source.name, source.class_names, labels)
    return Manifest(
        shape=full[0].shape,
        class_names=names,
        class_counts=counts,
        source=source.name,
        recipe=recipe,
        skipped=skipped,
        shards=tuple(result.shard for result in full if result.shard),
    )


def _hwc(shape: Shape) -> Shape:
    return shape[1], shape[2], shape[0]
