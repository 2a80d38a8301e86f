"""On-disk cache of the features of reference images and of noise, and of their statistics.

The key of a file consists of the fingerprint of the images, the name and SHA-256 of the extractor, and the
preprocessing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from cm_ray.data.interface.described import DescribedImages
from cm_ray.data.interface.reading import Reading
from cm_ray.data.shards.manifest import Manifest, read_rows, rows_per_group
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

    def blocks(self, first: int = 0, step: int = 1) -> Iterator[Tensor]:
        """Yield the blocks of images first, first + step … in order, uint8 (b, c, h, w); by default all."""


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

    def blocks(self, first: int = 0, step: int = 1) -> Iterator[Tensor]:
        """Yield the blocks of images first, first + step … in order, uint8 (b, c, h, w), a row group each."""
        rows = rows_per_group(self.shape)
        spans = [
            (shard.file, start, min(shard.rows, start + rows))
            for shard in self.manifest.shards
            for start in range(0, shard.rows, rows)
        ]
        for file, start, stop in spans[first::step]:
            images, _ = read_rows(self.folder / file, start, stop, self.shape)
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
    return _read_statistics(_file(manifest, extractor, "statistics"), manifest.count)


def keep_statistics(
    manifest: ScoredAgainst | Manifest, extractor: Extractor, statistics: FeatureStatistics
) -> None:
    """Write the statistics of the images to the cache."""
    _write_statistics(_file(manifest, extractor, "statistics"), statistics)


def kept_noise(shape: tuple[int, int, int], n: int, extractor: Extractor) -> FeatureStatistics | None:
    """Return the statistics of n images (c, h, w) of noise from the cache; None when they are not cached."""
    return _read_statistics(_noise_file(shape, n, extractor), n)


def keep_noise(shape: tuple[int, int, int], extractor: Extractor, statistics: FeatureStatistics) -> None:
    """Write the statistics of images (c, h, w) of noise to the cache."""
    _write_statistics(_noise_file(shape, statistics.n, extractor), statistics)


def kept_features(manifest: Manifest, extractor: Extractor, count: int) -> Tensor | None:
    """Return the features of the first `count` images (count, dim) from the cache; None without them."""
    arrays = _read(_file(manifest, extractor, "features", count), {"features"})
    return None if arrays is None else torch.from_numpy(arrays["features"])


def keep_features(manifest: Manifest, extractor: Extractor, features: Tensor) -> None:
    """Write the features of the first images (n, dim), in the order of the shards, to the cache."""
    _write(_file(manifest, extractor, "features", len(features)), {"features": features.numpy()})


def _file(
    manifest: ScoredAgainst | Manifest, extractor: Extractor, content: str, count: int | None = None
) -> Path:
    """Return the file in the cache of "statistics" of all images, or of "features" of the first `count`.

    Features are in the order of the images. The fingerprint does not depend on the order, so the SHA-256
    of the shards are part of their key.
    """
    key: list[object] = [manifest.fingerprint]
    if count is not None and isinstance(manifest, Manifest):
        key += [count, *(shard.sha256 for shard in manifest.shards)]
    return _named(f"{manifest.source}-{extractor.name}-{content}", extractor, key)


def _noise_file(shape: tuple[int, int, int], n: int, extractor: Extractor) -> Path:
    return _named(f"noise-{extractor.name}-statistics", extractor, ["noise", *shape, n])


def _named(name: str, extractor: Extractor, key: Sequence[object]) -> Path:
    whole = [extractor.name, extractor.weights_sha256, extractor.preprocess, *key]
    digest = hashlib.sha256(repr(whole).encode()).hexdigest()
    name = re.sub(r"[^\w.-]", "-", name)
    return cache_root() / "references" / f"{name}-{digest[:16]}.safetensors"


def _read_statistics(path: Path, n: int) -> FeatureStatistics | None:
    arrays = _read(path, {"total", "outer"})
    return None if arrays is None else FeatureStatistics(n, arrays["total"], arrays["outer"])


def _write_statistics(path: Path, statistics: FeatureStatistics) -> None:
    _write(path, {"total": statistics.total, "outer": statistics.outer})


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
