"""Files of the mean and the covariance of features, as programs for FID publish them for data sets."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.tables.npz_arrays import NpzArray, check_array, heads_of, whole
from cm_ray.errors import UserError
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.frechet import FrechetReference
from cm_ray.metrics.score_kinds import SampleSet
from cm_ray.storage.files import sha256_of

_MEAN, _COVARIANCE = "mu", "sigma"
FROM_STATISTICS = ("FD", "FDinf", "IS")
"""Kinds of scores that need no image of the reference."""


@dataclass(frozen=True)  # without slots, which cached properties do not allow
class StatisticsFile:
    """An .npz file with the arrays mu (d,) and sigma (d, d), in the place of the images that they are of.

    The number of those images is not known, and neither are their sizes and labels.
    """

    path: Path

    @property
    def source(self) -> str:
        """Name of the file."""
        return self.path.stem

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file, which stands for that of the images in the keys of scores."""
        return sha256_of(self.path)

    @property
    def count(self) -> int:
        """0: the number of images is not known."""
        return 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """No classes are known."""
        return ()

    @property
    def class_counts(self) -> tuple[int, ...]:
        """No classes are known."""
        return ()

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean of the features (d,)."""
        return self._array(_MEAN, 1)

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance of the features (d, d). Raises UserError when it is none."""
        found = self._array(_COVARIANCE, 2)
        dim = len(self.mean)
        if found.shape != (dim, dim) or not np.allclose(found, found.T, rtol=1e-4, atol=1e-6):
            raise UserError(
                f"The array {_COVARIANCE} of {self.path} {found.shape} is no covariance of {dim} features; "
                "give the file of a program for FID."
            )
        return (found + found.T) / 2

    def as_set(self) -> SampleSet:
        """Return the reference set of scores that need no single image."""
        return SampleSet(known=FrechetReference.of_moments(self.mean, self.covariance))

    def check(self, extractor: Extractor, kinds: Sequence[str]) -> None:
        """Raise UserError on statistics of another extractor, and on kinds that need the images."""
        if len(self.mean) != extractor.dim:
            raise UserError(
                f"{self.path} holds statistics of {len(self.mean)} features, and {extractor.name} has "
                f"{extractor.dim}: give those of the same extractor."
            )
        for kind in kinds:
            if kind not in FROM_STATISTICS:
                raise UserError(
                    f"{kind} compares with single images, and {self.path} holds the statistics of their "
                    "features alone; give the images."
                )

    def __str__(self) -> str:
        """Say what the file holds."""
        return f"{self.source}: mean and covariance of {len(self.mean):,} features, without images"

    def _array(self, name: str, axes: int) -> NDArray[np.float64]:
        array = heads_of(self.path)[name]
        check_array(array)
        if len(array.shape) != axes or array.dtype.kind != "f" or not len(array):
            raise UserError(
                f"The array {name} of {self.path} is {array.dtype} {array.shape}, not floating-point with "
                f"{axes} axes; give the file of a program for FID."
            )
        values = whole(array).astype(np.float64)
        if not np.isfinite(values).all():
            raise UserError(f"The array {name} of {self.path} is not finite; fetch or write it again.")
        return values


def is_statistics_file(path: object) -> bool:
    """Return True for the path of an .npz file with a mean and a covariance and without images."""
    if not isinstance(path, str | Path) or not str(path).endswith(".npz"):
        return False
    file = Path(path).expanduser()
    if not file.is_file() or not zipfile.is_zipfile(file):
        return False
    heads: dict[str, NpzArray] = heads_of(file)
    return {_MEAN, _COVARIANCE} <= heads.keys() and all(len(array.shape) < 3 for array in heads.values())
