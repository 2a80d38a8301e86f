"""Interface of a source of images: independent parts, which are read on any machine and in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.interface.outline import Outline
from cm_ray.data.interface.reading import ReadOptions as ReadOptions

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Callback that gets what is done and what there is in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images of a part, in the order of the source."""

    images: Pixels
    """(n, h, w, c), c is 1 or 3; n may be 0 in the last batch of a part."""
    labels: Labels
    """(n,), -1 where there is no label."""
    skipped: int = 0
    """Number of bad images left out since the previous batch."""
    first: str = ""
    """Name of the first image in messages."""
    bits: int = 0
    """The bits by which samples of more than 8 bits were scaled; 0 when there are none."""
    transparent: int = 0
    """Number of images through which the background is seen."""
    profiles_ignored: int = 0
    """Number of images with a colour profile that is damaged or does not fit."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files or folders that a source does not read."""

    count: int
    """Number of them."""
    what: str
    """Their kind in the plural, such as "files ending in .txt"."""
    why: str
    """Reason, such as "not images"."""


class MixedChannelsError(Exception):
    """Raised for a part of grey and colour images, which is then read again with `channels=3`."""


class MixedBitsError(Exception):
    """Raised for images whose samples use different numbers of bits; they are read again with the greatest.

    bits: the greatest number so far.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(f"samples of {bits} bits beside others of fewer")
        self.bits = bits


class Part(Protocol):
    """A piece of a source: small, picklable, read without the others."""

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield the images in batches of at most 1,024.

        Raises UserError on a bad image (unless skipped) and on images of different sizes, MixedChannelsError
        when grey and colour images meet, and MixedBitsError when samples of 10 and of 12 bits do.
        """


class Source(Protocol):
    """A data set in its original form."""

    @property
    def name(self) -> str:
        """Name in messages and manifests."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, …; empty when there are none or they are not known."""

    @property
    def layout(self) -> str:
        """Phrase for how the images lie there, such as "image files in class folders"."""

    @property
    def split(self) -> str:
        """Name of the split that is read; "" when the data has no splits."""

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Files and folders of the data set that are not read."""

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels of all images and the headers of some, without decoding and downloading.

        Raises UserError when a file cannot be read.
        """

    def identity(self, progress: Progress | None = None) -> str:
        """Return a hex digest of the names and contents of the files, which are read if they are not known.

        progress: is called with bytes done and bytes in all. Raises UserError when a file cannot be read.
        """

    def parts(self, rows_per_part: int) -> Sequence[Part]:
        """Split into parts of `rows_per_part` images each; the last may be shorter."""


def cut_pieces(
    files: Sequence[tuple[str, int]], rows_per_piece: int
) -> list[tuple[tuple[str, int, int], ...]]:
    """Cut the rows of files, given as (name, rows) and taken one after the other, into runs of equal length.

    Returns the pieces (name, first row, row after the last) of each run; the last run may be shorter.
    """
    runs: list[tuple[tuple[str, int, int], ...]] = []
    run: list[tuple[str, int, int]] = []
    room = rows_per_piece
    for name, rows in files:
        start = 0
        while start < rows:
            stop = min(rows, start + room)
            run.append((name, start, stop))
            room -= stop - start
            start = stop
            if not room:
                runs.append(tuple(run))
                run, room = [], rows_per_piece
    return [*runs, tuple(run)] if run else runs
