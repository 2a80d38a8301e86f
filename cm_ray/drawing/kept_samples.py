"""All samples of an evaluation, kept for other programs: an .npz, or shards to be read as data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cm_ray.data.shards.manifest import Manifest
from cm_ray.data.shards.shard_file import write_shard
from cm_ray.data.shards.shard_writer import shard_name
from cm_ray.drawing.pictures import save_arrays
from cm_ray.networks.model import ModelSpec
from cm_ray.storage.files import folder_written_aside


def keep_samples(
    images: Tensor, stem: Path, how: Literal["npz", "shards"], spec: ModelSpec, labels: Tensor | None
) -> None:
    """Write uint8 images (n, c, h, w) and their labels (n,), if any: to STEM.npz, or to shards in STEM."""
    if how == "npz":
        save_arrays(images, stem.with_name(stem.name + ".npz"), labels, spec.class_names)
        return
    names = () if labels is None else spec.class_names
    numbers = torch.full((len(images),), -1) if labels is None else labels
    counts = torch.bincount(numbers[numbers >= 0], minlength=len(names)).tolist() if names else ()
    channels, height, width = images.shape[1:]
    with folder_written_aside(stem) as aside:
        shard = write_shard(aside / shard_name(0), images.numpy(), numbers.numpy())
        Manifest(
            shape=(channels, height, width),
            class_names=names,
            class_counts=tuple(counts),
            source=f"samples-{stem.name}",
            recipe=hashlib.sha256(f"{stem.name} {shard.content}".encode()).hexdigest(),
            skipped=0,
            shards=(shard,),
        ).save(aside)
