"""Images in memory as a folder of shards in the cache, where the workers of a cluster read them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cm_ray.data.image_set import ImageSet
from cm_ray.data.interface.agreement import in_agreement
from cm_ray.data.interface.classes import classes_of
from cm_ray.data.interface.fingerprint import ContentHash
from cm_ray.data.interface.permutation import SEED, KeyStream, Permutation, key_ranges
from cm_ray.data.interface.seen import Seen
from cm_ray.data.interface.source import Labels, Pixels, ReadOptions
from cm_ray.data.load_images import checked_batches, load_images
from cm_ray.data.open_images import ArrayImages, OpenedImages, open_images
from cm_ray.data.shards.manifest import FORMAT, Manifest, Shape, check_shards, is_shard_folder
from cm_ray.data.shards.shard_writer import ROWS_PER_SHARD, shard_name
from cm_ray.data.shards.sorted_runs import RunFile, write_shuffled, writing_runs
from cm_ray.errors import UserError
from cm_ray.storage.files import absolute, cache_root, remove, sync

_Piece = tuple[int, Pixels, Labels]
_AS_THEY_ARE = ReadOptions()


def as_shards(data: object, options: ReadOptions = _AS_THEY_ARE, *, cache: Path | None = None) -> str:
    """Return what the settings take as the path of the data; images in memory are written as shards first.

    Paths and names of data sets are returned as they are (a `Path` as an absolute one, since it is never a
    name). Anything else that `load_images` takes is written to a folder of shards in `cache` (default: the
    folder ``shards`` of the program's cache). The folder's name tells the images, their order and the names
    of their classes: a folder that is there already is used again. Data sets of PyTorch and Ray are read some
    rows at a time. options: they do not apply to paths and names. Raises UserError as `load_images`, and when
    the disk is full.
    """
    if isinstance(data, Path):
        return str(absolute(data))
    if isinstance(data, str):
        return data
    root = cache or cache_root() / "shards"
    opened = open_images(data, options)
    images = None
    if isinstance(opened, ArrayImages):
        images = load_images(data, **asdict(options.read_options))
        folder = root / _folder_name(images, _order(images.class_names, _hashes(images)))
        if _is_whole(folder):
            return str(folder)
        options = ReadOptions()
        opened = open_images(images, options)
    return str(in_agreement(lambda options: _written(opened, root, options, images), options))


def _hashes(images: ImageSet) -> list[ContentHash]:
    """Return the hash of each part that the images are cut into."""
    hashes = []
    for start in range(0, len(images), ROWS_PER_SHARD):
        rows = slice(start, start + ROWS_PER_SHARD)
        hashes.append(ContentHash())
        hashes[-1].add(images.images[rows].numpy(), images.labels[rows].numpy())
    return hashes


def _order(class_names: tuple[str, ...], hashes: list[ContentHash]) -> str:
    """Return a digest of what the fingerprint leaves out: the order of the images, the names of classes."""
    content = json.dumps([FORMAT, class_names, [one.order for one in hashes]])
    return hashlib.sha256(content.encode()).hexdigest()


def _folder_name(described: ImageSet | Manifest, order: str) -> str:
    name = re.sub(r"[^\w.-]+", "-", described.source)
    return f"{name}-{described.fingerprint[:12]}-{order[:12]}"


def _is_whole(folder: Path) -> bool:
    """Return True if a folder holds all of its shards; a damaged folder is removed."""
    try:
        check_shards(folder, Manifest.load(folder))
    except UserError:
        remove(folder)
        return False
    return True


def _pieces(opened: OpenedImages, options: ReadOptions, seen: Seen) -> Iterator[_Piece]:
    """Yield (part, images (n, c, h, w), labels (n,)), cut where a part is full."""
    row = 0
    for batch in checked_batches(opened, options, seen):
        images, labels = batch.images.transpose(0, 3, 1, 2), batch.labels
        while len(images):
            part, inside = divmod(row, ROWS_PER_SHARD)
            room = ROWS_PER_SHARD - inside
            yield part, images[:room], labels[:room]
            row += len(images[:room])
            images, labels = images[room:], labels[room:]


def _write_runs(path: Path, part: int, pieces: Iterator[_Piece]) -> tuple[RunFile, ContentHash, Shape]:
    """Write pieces, of which there is at least one, as the sorted runs of a part."""
    first = next(pieces)
    channels, height, width = first[1].shape[1:]
    shape, found = (channels, height, width), ContentHash()
    with writing_runs(path, shape, KeyStream(SEED, part)) as writer:
        for _, images, labels in itertools.chain([first], pieces):
            writer.write(images, labels)
            found.add(images, labels)
    return RunFile(path, tuple(writer.runs)), found, shape


def _written(opened: OpenedImages, root: Path, options: ReadOptions, known: ImageSet | None) -> Path:
    """Write the images as shards to a new folder of `root`, which gets its name when all is known.

    known: the images in memory, if they were read before.
    """
    seen = Seen()
    files: list[RunFile] = []
    hashes: list[ContentHash] = []
    with _aside(root) as aside:
        for index, pieces in itertools.groupby(_pieces(opened, options, seen), key=lambda piece: piece[0]):
            file, found, shape = _write_runs(aside / f"{index}.runs", index, pieces)
            files.append(file)
            hashes.append(found)
        names, counts = classes_of(opened.name, opened.class_names, seen.labels)
        order = _order(names, hashes)
        met = known or seen
        permutation = Permutation(SEED, tuple(sum(file.runs) for file in files))
        ranges = enumerate(key_ranges(permutation.keys(), ROWS_PER_SHARD))
        shards = [write_shuffled(aside / shard_name(index), files, shape, keys) for index, keys in ranges]
        for file in files:
            remove(file.path)
        manifest = Manifest(
            shape=shape,
            class_names=names,
            class_counts=counts,
            source=opened.name,
            recipe=order,
            skipped=met.skipped,
            shards=tuple(shards),
            permutation=permutation,
            reading=known.reading if known else options.used(seen.bits),
            transparent=met.transparent,
            profiles_ignored=met.profiles_ignored,
        )
        manifest.save(aside)
        return _named(aside, root / _folder_name(manifest, order))


def _named(aside: Path, folder: Path) -> Path:
    """Rename a finished folder, unless one of the same content is there; return the one that is kept."""
    if not _is_whole(folder):
        try:
            aside.rename(folder)
        except OSError:  # another process was first
            if not is_shard_folder(folder):
                raise
        sync(folder.parent)
    return folder


@contextlib.contextmanager
def _aside(root: Path) -> Iterator[Path]:
    """Yield an empty folder in `root`, which is removed if it has not been renamed."""
    folder = root / f".{uuid.uuid4().hex[:12]}.part"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)
