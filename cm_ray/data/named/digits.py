"""The digits of scikit-learn, 1,797 grey images of 8x8: no download, for tests and first experiments."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cm_ray.data.interface.classes import count_labels
from cm_ray.data.interface.outline import Outline, outline_of_pixels
from cm_ray.data.interface.source import Batch, LeftOut, Progress, ReadOptions
from cm_ray.data.pictures.images import pixel_batches
from cm_ray.errors import UserError
from cm_ray.extras import needs

_COUNT = 1797


@dataclass(frozen=True, slots=True)
class DigitsPart:
    """Images `start` to `stop` of the digits."""

    start: int
    stop: int

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield (n, 8, 8, 1) images, the grey levels 0..16 scaled to 0..255."""
        needs("sklearn", extra="train")
        from sklearn.datasets import load_digits

        table = load_digits()
        levels = table.images[self.start : self.stop]
        pixels = np.round(levels * (255 / 16)).astype(np.uint8)[..., None]
        yield from pixel_batches(pixels, table.target[self.start : self.stop], "a digit", options)


@dataclass(frozen=True, slots=True)
class DigitsSource:
    """All digits. Raises UserError for a split other than "train", which is the only one."""

    split: str = "train"

    def __post_init__(self) -> None:
        if self.split != "train":
            raise UserError(f"digits has no split {self.split!r}; its only one is 'train'.")

    @property
    def name(self) -> str:
        """Name of the source."""
        return "digits"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the ten classes."""
        return tuple("0123456789")

    @property
    def layout(self) -> str:
        """Phrase for the form of the data."""
        return "the digits of scikit-learn"

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Nothing: every image is read."""
        return ()

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels and the size of all images."""
        batches = DigitsPart(0, _COUNT).read(ReadOptions())
        labels = sum((count_labels(batch.labels) for batch in batches), start=Counter[int]())
        return outline_of_pixels(labels, 8, 8, grey=True)

    def identity(self, progress: Progress | None = None) -> str:
        """Return a constant: the data set never changes."""
        return hashlib.sha256(b"digits 1797").hexdigest()

    def parts(self, rows_per_part: int) -> list[DigitsPart]:
        """Split into runs of images."""
        return [
            DigitsPart(start, min(_COUNT, start + rows_per_part)) for start in range(0, _COUNT, rows_per_part)
        ]
