"""Features of a data set and their statistics, computed once and kept in the cache by content.

The name of a file tells the images (fingerprint), the extractor (name, SHA-256) and the preprocessing.
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

from cm_ray.data.shards import Manifest, read_rows, rows_per_group
from cm_ray.metrics.extractors.extractor import Extractor, statistics_of_batches
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.storage.files import cache_root, remove, written_aside


class ScoredAgainst(Protocol):
    """A data set that samples are compared with: in shards, or in memory."""

    @property
    def source(self) -> str:
        """Short name of where the images come from."""

    @property
    def fingerprint(self) -> str:
        """Digest of the images, whatever their order."""

    @property
    def count(self) -> int:
        """Number of images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every image."""

    def blocks(self) -> Iterator[Tensor]:
        """Yield all images in order, uint8 (b, c, h, w)."""


@dataclass(frozen=True)
class Shards:
    """A data set in a folder of shards."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Read the manifest of a folder."""
        return cls(folder, Manifest.load(folder))

    @property
    def source(self) -> str:
        """Short name of where the images come from."""
        return self.manifest.source

    @property
    def fingerprint(self) -> str:
        """Digest of the images, whatever their order."""
        return self.manifest.fingerprint

    @property
    def count(self) -> int:
        """Number of images."""
        return self.manifest.count

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every image."""
        return self.manifest.shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class; empty without labels."""
        return self.manifest.class_names

    def blocks(self) -> Iterator[Tensor]:
        """Yield all images in order, a few at a time: a data set need not fit into memory."""
        step = rows_per_group(self.shape)
        for shard in self.manifest.shards:
            for start in range(0, shard.rows, step):
                stop = min(shard.rows, start + step)
                images, _ = read_rows(self.folder / shard.file, start, stop, self.shape)
                yield torch.from_numpy(images.copy())  # PyTorch warns of read-only arrays


def reference_statistics(data: ScoredAgainst, extractor: Extractor) -> FeatureStatistics:
    """Return the statistics of the features of all images of a data set, from the cache if there."""
    found = kept_statistics(data, extractor)
    if found is None:
        found = statistics_of_batches(extractor, data.blocks())
        keep_statistics(data, extractor, found)
    return found


def kept_statistics(manifest: ScoredAgainst | Manifest, extractor: Extractor) -> FeatureStatistics | None:
    """Return the statistics of these images from the cache; None when they are not there."""
    arrays = _read(_file(manifest, extractor, "statistics"), {"total", "outer"})
    if arrays is None:
        return None
    return FeatureStatistics(manifest.count, arrays["total"], arrays["outer"])


def keep_statistics(
    manifest: ScoredAgainst | Manifest, extractor: Extractor, statistics: FeatureStatistics
) -> None:
    """Put the statistics of these images into the cache."""
    arrays = {"total": statistics.total, "outer": statistics.outer}
    _write(_file(manifest, extractor, "statistics"), arrays)


def kept_features(manifest: Manifest, extractor: Extractor) -> Tensor | None:
    """Return the features (n, dim) of these images from the cache; None when they are not there."""
    arrays = _read(_file(manifest, extractor, "features"), {"features"})
    return None if arrays is None else torch.from_numpy(arrays["features"])


def keep_features(manifest: Manifest, extractor: Extractor, features: Tensor) -> None:
    """Put the features of these images, in the order of the shards, into the cache."""
    _write(_file(manifest, extractor, "features"), {"features": features.numpy()})


def _file(manifest: ScoredAgainst | Manifest, extractor: Extractor, what: str) -> Path:
    """Return the place of what is known.

    Features follow the order of the images, which the fingerprint does not tell and the files' SHA-256 do.
    """
    key = [extractor.name, extractor.weights_sha256, extractor.preprocess, manifest.fingerprint]
    order: list[str] = []
    if what == "features" and isinstance(manifest, Manifest):
        order = [shard.sha256 for shard in manifest.shards]
    digest = hashlib.sha256(repr([*key, *order]).encode()).hexdigest()
    name = re.sub(r"[^\w.-]", "-", f"{manifest.source}-{extractor.name}")
    return cache_root() / "references" / f"{name}-{what}-{digest[:16]}.safetensors"


def _read(path: Path, names: set[str]) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file; None, and the file removed, when it is not whole."""
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
