"""Images in any form, read into memory without Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cm_ray.data.image_set import ImageSet
from cm_ray.data.interface.agreement import check_same_shape, in_agreement
from cm_ray.data.interface.classes import classes_of
from cm_ray.data.interface.fingerprint import ContentHash, fingerprint
from cm_ray.data.interface.reading import MOST_PIXELS, OnBadImage, ReadOptions
from cm_ray.data.interface.seen import Seen
from cm_ray.data.interface.source import Batch, Labels, Pixels, Progress
from cm_ray.data.open_images import OpenedImages, open_images
from cm_ray.data.shards.manifest import Manifest, check_shards, is_shard_folder, load_all
from cm_ray.data.shards.shard_options import check_given
from cm_ray.errors import UserError


def load_images(
    data: object,
    *,
    size: int = 0,
    split: str = "",
    channels: Literal[0, 1, 3] = 0,
    background: str = "",
    bits: int = 0,
    on_bad_image: OnBadImage = "raise",
    most_pixels: int = MOST_PIXELS,
    image_column: str = "",
    label_column: str = "",
    progress: Progress | None = None,
) -> ImageSet:
    """Read images in any form into memory, without Ray but for a `ray.data.Dataset`.

    data: the path of a folder, a zip or a tar archive of images (sub-folders are classes), of a folder of
    shards or of Parquet files, of a Parquet file or of an .npz; the name of a data set ("digits", "cifar10");
    a tensor or array, uint8 or floating-point in [-1, 1] or [0, 1], (n, c, h, w), (n, h, w, c) or (n, h, w);
    a tuple (images, labels); a map-style torch `Dataset` of images or (image, label), whose attribute
    `classes` names the classes; a `ray.data.Dataset` with the columns image and label; or an `ImageSet`.
    size: crop the centre to a square and resize it to this many pixels. split: see `open_source`.
    channels: 1 for grey, 3 for RGB. background: the colour behind transparent pixels, white if empty. bits:
    what samples of more than 8 bits use at least. on_bad_image: "skip" leaves out files that cannot be
    decoded, and class folders of nothing else. most_pixels: the limit of an image. image_column,
    label_column: of Parquet files or an .npz; "none" reads no labels. progress: gets the bytes of a download,
    done and in all. Raises UserError when the data is missing, damaged, empty, or could be read in two ways.
    """
    options = ReadOptions(
        split=split,
        size=size,
        channels=channels,
        background=background,
        bits=bits,
        on_bad_image=on_bad_image,
        most_pixels=most_pixels,
        image_column=image_column,
        label_column=label_column,
    )
    return _loaded(data, options, progress)


def _loaded(data: object, options: ReadOptions, progress: Progress | None) -> ImageSet:
    if (folder := _shard_folder(data)) is not None:
        return _from_shards(folder, options)
    if isinstance(data, ImageSet) and not (options.split or options.columns):
        return data if _is_so(data, options) else _read_again(data, options)
    return _read(open_images(data, options, progress), options)


def _read(opened: OpenedImages, options: ReadOptions) -> ImageSet:
    images, labels, seen = in_agreement(lambda options: _collected(opened, options), options)
    names, _ = classes_of(opened.name, opened.class_names, seen.labels)
    found = ContentHash()
    found.add(images, labels)
    return ImageSet(
        torch.from_numpy(images),
        torch.from_numpy(labels),
        names,
        fingerprint(images.shape[1:], len(images), [found.content]),
        opened.name,
        skipped=seen.skipped,
        reading=options.used(seen.bits),
        transparent=seen.transparent,
        profiles_ignored=seen.profiles_ignored,
    )


def _is_so(images: ImageSet, options: ReadOptions) -> bool:
    """Return True if images in memory have the size and the channels that are wanted."""
    c, h, w = images.shape
    return options.channels in (0, c) and (not options.size or h == w == options.size)


def _read_again(images: ImageSet, options: ReadOptions) -> ImageSet:
    """Return images in memory at another size or with other channels."""
    return replace(
        _read(open_images(images, options), options),
        skipped=images.skipped,
        reading=images.reading,
        transparent=images.transparent,
        profiles_ignored=images.profiles_ignored,
    )


def _shard_folder(data: object) -> Path | None:
    """Return the folder of shards that `data` is the path of, if it is one."""
    if not isinstance(data, str | Path):
        return None
    folder = Path(data).expanduser()
    return folder if str(data) and is_shard_folder(folder) else None


def _from_shards(folder: Path, options: ReadOptions) -> ImageSet:
    manifest = Manifest.load(folder)
    check_shards(folder, manifest)
    check_given(folder, manifest, options)
    images, labels = load_all(folder, manifest)
    return ImageSet(
        torch.from_numpy(images),
        torch.from_numpy(labels),
        manifest.class_names,
        manifest.fingerprint,
        manifest.source,
        skipped=manifest.skipped,
        reading=manifest.reading,
        transparent=manifest.transparent,
        profiles_ignored=manifest.profiles_ignored,
    )


def checked_batches(opened: OpenedImages, options: ReadOptions, seen: Seen) -> Iterator[Batch]:
    """Yield the batches, all images of one shape, and count them.

    Raises UserError when there is no image at all.
    """
    first: Batch | None = None
    for batch in seen.follow(opened.read(options)):
        if len(batch.images):
            first = first or batch
            check_same_shape(first.first, first.images.shape[1:], batch.first, batch.images.shape[1:])
        yield batch
    if first is None:
        why = f"no readable image ({seen.skipped} were skipped)" if seen.skipped else "no image"
        raise UserError(f"{opened.name} holds {why}; give other data.")


def _collected(opened: OpenedImages, options: ReadOptions) -> tuple[Pixels, Labels, Seen]:
    """Return all images (n, c, h, w), all labels (n,) and the counts of what was met."""
    seen = Seen()
    batches = deque(batch for batch in checked_batches(opened, options, seen) if len(batch.images))
    height, width, channels = batches[0].images.shape[1:]
    labels: Labels = np.concatenate([batch.labels for batch in batches])
    images = np.empty((len(labels), channels, height, width), np.uint8)
    place = 0
    while batches:  # each batch is freed once it is copied: memory holds the images once
        batch = batches.popleft()
        images[place : place + len(batch.images)] = batch.images.transpose(0, 3, 1, 2)
        place += len(batch.images)
    return images, labels, seen
