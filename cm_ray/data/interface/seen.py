"""Counts of what was met while a data set was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cm_ray.data.interface.agreement import agreed_bits
from cm_ray.data.interface.classes import count_labels
from cm_ray.data.interface.source import Batch


@dataclass(slots=True)
class Seen:
    """Counts over batches of images."""

    skipped: int = 0
    """Number of bad images that were left out."""
    labels: Counter[int] = field(default_factory=Counter)
    """Number of images of each label."""
    bits: int = 0
    """The bits by which samples of more than 8 bits were scaled; 0 when there are none."""
    transparent: int = 0
    """Number of images through which the background is seen."""
    profiles_ignored: int = 0
    """Number of images with a colour profile that is damaged or does not fit."""

    def follow(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches and count them. Raises MixedBitsError when they were scaled by different bits."""
        for batch in batches:
            self.bits = agreed_bits(self.bits, batch.bits)
            self.skipped += batch.skipped
            self.labels += count_labels(batch.labels)
            self.transparent += batch.transparent
            self.profiles_ignored += batch.profiles_ignored
            yield batch
