"""Images in memory, and the order in which training without Ray reads them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cm_ray.data.interface.classes import classes_in_words
from cm_ray.data.interface.described import remarks
from cm_ray.data.interface.reading import Reading
from cm_ray.data.shards.manifest import rows_per_group
from cm_ray.data.shards.order import memory_indices


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images of one shape with their labels, in memory; `load_images` makes it."""

    images: Tensor
    """uint8 (n, c, h, w), on the CPU."""
    labels: Tensor
    """int64 (n,), -1 where there is none, on the CPU."""
    class_names: tuple[str, ...]
    """Name of each class; empty when the images have no labels."""
    fingerprint: str
    """Hex digest of the images and labels, whatever their order and form; that of `Manifest.fingerprint`."""
    source: str
    """Short name of where they come from."""
    skipped: int = field(default=0, kw_only=True)
    """Bad images that were left out."""
    reading: Reading = field(default_factory=Reading, kw_only=True)
    """The background and the bits that image files were read with."""
    transparent: int = field(default=0, kw_only=True)
    """Number of images through which the background is seen."""
    profiles_ignored: int = field(default=0, kw_only=True)
    """Number of images with a colour profile that is damaged or does not fit."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def classes(self) -> int:
        """Number of classes; 0 when the images have no labels."""
        return len(self.class_names)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class; empty when the images have no labels."""
        if not self.class_names:
            return ()
        return tuple(torch.bincount(self.labels, minlength=self.classes).tolist())

    def blocks(self, first: int = 0, step: int = 1) -> Iterator[Tensor]:
        """Yield the blocks of images first, first + step … in order, uint8 (b, c, h, w), as shards do."""
        yield from self.images.split(rows_per_group(self.shape))[first::step]

    def describe(self) -> str:
        """Say in a sentence what was understood: number, size, colours and classes of the images."""
        c, h, w = self.shape
        said = f"{self.count:,} images" if self.count != 1 else "1 image"
        classes = classes_in_words(self.class_names, self.class_counts)
        said += f" of {w}x{h}, {'grey' if c == 1 else 'RGB'}, {classes}"
        return said + "".join(f"; {remark}" for remark in remarks(self)) + "."

    def batches(self, *, seed: int, batch_size: int, start_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of global step `start_step` on, without end.

        They are the batches of the streaming code with the data in memory and one worker; see
        `memory_batches`.
        """
        return memory_batches(
            self.images, self.labels, seed=seed, batch_size=batch_size, start_step=start_step
        )


def memory_batches(
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield worker `rank`'s share of each global batch, without end, from global step `start_step` on.

    images: (n, c, h, w). labels: (n,). batch_size: of the global batch, divided among `world` workers. Each
    epoch is a permutation of all images, a function of (seed, epoch); batches go on over the ends of epochs.
    Yields images (b, c, h, w) and labels (b,).
    """
    if batch_size < world or start_step < 0:
        raise ValueError(f"batch_size {batch_size} for {world} workers, start_step {start_step}")
    rows = batch_size // world
    for step in itertools.count(start_step):
        first = step * batch_size + rank * rows
        index = torch.from_numpy(memory_indices(seed, len(images), first, first + rows))
        yield images[index], labels[index]
