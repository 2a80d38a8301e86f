"""On-disk cache of the features of reference images, and of their statistics.

The key of a file consists of the fingerprint of the images, the name and SHA-256 of the extractor, and the
preprocessing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from cm_ray.data.described import DescribedImages
from cm_ray.data.reading import Reading
from cm_ray.data.shards import Manifest, read_rows, rows_per_group
from cm_ray.metrics.extractors.extractor import Extractor, statistics_of_batches
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.storage.files import cache_root, remove, written_aside


class ScoredAgainst(DescribedImages, Protocol):
    """Reference images that samples are compared with, in shards or in memory."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of every image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class; empty without labels."""

    def blocks(self) -> Iterator[Tensor]:
        """Yield all images in order, uint8 (b, c, h, w)."""


@dataclass(frozen=True)
class Shards:
    """Images in a folder of shards."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Return the images of a folder; only its manifest is read."""
        return cls(folder, Manifest.load(folder))

    @property
    def source(self) -> str:
        """Short name of the source of the images."""
        return self.manifest.source

    @property
    def fingerprint(self) -> str:
        """Digest of the images that does not depend on their order."""
        return self.manifest.fingerprint

    @property
    def count(self) -> int:
        """Number of images."""
        return self.manifest.count

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of every image."""
        return self.manifest.shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""
        return self.manifest.class_names

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class; empty without labels."""
        return self.manifest.class_counts

    @property
    def reading(self) -> Reading:
        """The background and the bits that image files were read with."""
        return self.manifest.reading

    def blocks(self) -> Iterator[Tensor]:
        """Yield all images in order, uint8 (b, c, h, w), one row group at a time."""
        step = rows_per_group(self.shape)
        for shard in self.manifest.shards:
            for start in range(0, shard.rows, step):
                stop = min(shard.rows, start + step)
                images, _ = read_rows(self.folder / shard.file, start, stop, self.shape)
                yield torch.from_numpy(images.copy())  # a copy, because PyTorch warns of read-only arrays


def reference_statistics(data: ScoredAgainst, extractor: Extractor) -> FeatureStatistics:
    """Return the statistics of the features of all images, from the cache or computed and then cached."""
    found = kept_statistics(data, extractor)
    if found is None:
        found = statistics_of_batches(extractor, data.blocks())
        keep_statistics(data, extractor, found)
    return found


def kept_statistics(manifest: ScoredAgainst | Manifest, extractor: Extractor) -> FeatureStatistics | None:
    """Return the statistics of the images from the cache; None when they are not cached."""
    arrays = _read(_file(manifest, extractor, "statistics"), {"total", "outer"})
    if arrays is None:
        return None
    return FeatureStatistics(manifest.count, arrays["total"], arrays["outer"])


def keep_statistics(
    manifest: ScoredAgainst | Manifest, extractor: Extractor, statistics: FeatureStatistics
) -> None:
    """Write the statistics of the images to the cache."""
    arrays = {"total": statistics.total, "outer": statistics.outer}
    _write(_file(manifest, extractor, "statistics"), arrays)


def kept_features(manifest: Manifest, extractor: Extractor) -> Tensor | None:
    """Return the features of the images (n, dim) from the cache; None when they are not cached."""
    arrays = _read(_file(manifest, extractor, "features"), {"features"})
    return None if arrays is None else torch.from_numpy(arrays["features"])


def keep_features(manifest: Manifest, extractor: Extractor, features: Tensor) -> None:
    """Write the features of the images (n, dim), in the order of the shards, to the cache."""
    _write(_file(manifest, extractor, "features"), {"features": features.numpy()})


def _file(manifest: ScoredAgainst | Manifest, extractor: Extractor, content: str) -> Path:
    """Return the file in the cache of "statistics" or "features".

    Features are in the order of the images. The fingerprint does not depend on the order, so the SHA-256
    of the shards are part of their key.
    """
    key = [extractor.name, extractor.weights_sha256, extractor.preprocess, manifest.fingerprint]
    order: list[str] = []
    if content == "features" and isinstance(manifest, Manifest):
        order = [shard.sha256 for shard in manifest.shards]
    digest = hashlib.sha256(repr([*key, *order]).encode()).hexdigest()
    name = re.sub(r"[^\w.-]", "-", f"{manifest.source}-{extractor.name}")
    return cache_root() / "references" / f"{name}-{content}-{digest[:16]}.safetensors"


def _read(path: Path, names: set[str]) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file; None when there is no file, or when it is damaged and was removed."""
    if not path.is_file():
        return None
    try:
        arrays: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, OSError):
        arrays = {}
    if set(arrays) != names:
        remove(path)
        return None
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with written_aside(path) as aside:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, aside)
