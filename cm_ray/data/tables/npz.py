"""Images in .npz files, as OpenAI's tools, Keras, MedMNIST and `cm_ray.drawing.pictures` write them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.interface.classes import as_labels, count_labels
from cm_ray.data.interface.columns import DEFAULT, Columns
from cm_ray.data.interface.names import class_name, in_class_order, printable
from cm_ray.data.interface.outline import Outline, outline_of_pixels
from cm_ray.data.interface.source import Batch, Labels, LeftOut, Progress, ReadOptions, cut_pieces
from cm_ray.data.layouts.identity import digest_of_files
from cm_ray.data.pictures.images import BATCH_ROWS, pixel_batches
from cm_ray.data.tables.npz_arrays import NpzArray, heads_of, rows_of, whole
from cm_ray.data.tables.npz_contents import NpzContents
from cm_ray.errors import UserError


@dataclass(frozen=True, slots=True)
class NpzLabels:
    """The meaning of the array of labels."""

    texts: tuple[str, ...] = ()
    """Names of the classes in the order of their numbers, when the labels are texts."""
    first: int = 0
    """The label of class 0."""

    def numbers(self, values: NDArray[Any]) -> Labels:
        """Return labels (n,) or (n, 1) as numbers of classes (n,)."""
        flat = values.reshape(-1)
        if self.texts:
            known = {text: number for number, text in enumerate(self.texts)}
            return np.array([known[text] for text in _texts(flat)], np.int64)
        return as_labels(flat) - self.first


def _texts(values: NDArray[Any]) -> list[str]:
    """Return texts as names of classes; bytes are UTF-8."""
    found = values.tolist()
    return [class_name(os.fsdecode(each) if isinstance(each, bytes) else each) for each in found]


@dataclass(frozen=True, slots=True)
class NpzPart:
    """Runs of images (file, start, stop)."""

    pieces: tuple[tuple[str, int, int], ...]
    contents: NpzContents
    labels: NpzLabels

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield (n, h, w, c) images, reading only these rows, 1,024 at a time; see `Part.read`."""
        for file, start, stop in self.pieces:
            heads = heads_of(Path(file))
            images = self.contents.check(heads, printable(file))
            if len(images) < stop:
                raise UserError(
                    f"{printable(file)} has become shorter since it was opened; repeat the command."
                )
            numbers = self._numbers(heads, start, stop)
            row = start
            for values in rows_of(images, start, stop, BATCH_ROWS):
                those = numbers[row - start :][: len(values)]
                name = f"{printable(file)} image {row}"
                yield from pixel_batches(self.contents.pixels(values), those, name, options)
                row += len(values)

    def label_counts(self) -> Counter[int]:
        """Return the number of images of each label."""
        found: Counter[int] = Counter()
        for file, start, stop in self.pieces:
            found += count_labels(self._numbers(heads_of(Path(file)), start, stop))
        return found

    def _numbers(self, heads: dict[str, NpzArray], start: int, stop: int) -> Labels:
        if self.contents.labels is None:
            return np.full(stop - start, -1, np.int64)
        (values,) = rows_of(heads[self.contents.labels], start, stop, stop - start)
        return self.labels.numbers(values)


@dataclass(frozen=True, slots=True)
class NpzSource:
    """Arrays of images in .npz files, and mostly an array of labels; see `npz_contents` for their names.

    A part of a file that is not compressed (numpy.savez) reads only its own rows; a part of a compressed file
    inflates all rows before its own, too.
    """

    name: str
    files: tuple[tuple[str, int], ...]
    """(absolute path, images) of each file."""
    contents: NpzContents
    labels: NpzLabels
    class_names: tuple[str, ...]
    split: str = ""
    """Name of the split that the files or their arrays are, if their data set has splits."""
    left_out: tuple[LeftOut, ...] = ()
    """Arrays and files that are not read."""

    @classmethod
    def open(cls, paths: Sequence[Path], name: str, wanted: Columns = DEFAULT, asked: str = "") -> NpzSource:
        """Read the arrays' headers, and the labels where their values tell what they mean.

        asked: the split that the user names. Raises UserError on a damaged file, on arrays that do not fit,
        and when the choice of them is not clear.
        """
        heads = [heads_of(path) for path in paths]
        contents = NpzContents.of(heads[0], wanted, asked, printable(str(paths[0])))
        files = []
        for path, arrays in zip(paths, heads, strict=True):
            images = contents.check(arrays, printable(str(path)))
            files.append((os.path.abspath(path), len(images)))
        labels, names = _classes(heads, contents)
        return cls(name, tuple(files), contents, labels, names, contents.split, contents.left_out)

    @property
    def count(self) -> int:
        """Number of images in all files."""
        return sum(rows for _, rows in self.files)

    @property
    def layout(self) -> str:
        """Phrase for the form of the data and the arrays that are read."""
        files = f"{len(self.files)} .npz files" if len(self.files) > 1 else "an .npz file"
        axes = " as rows of planes" if self.contents.axes == "planes" else ""
        labels = f" and labels in {self.contents.labels!r}" if self.contents.labels else ", without labels"
        shifted = f", which begin with {self.labels.first}" if self.labels.first else ""
        return f"{files} with images in {self.contents.images!r}{axes}{labels}{shifted}"

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels of all images, and the shape that they have."""
        labels: Counter[int] = Counter()
        for part in self.parts(max(rows for _, rows in self.files)):
            labels += part.label_counts()
        first, heads = self.files[0][0], heads_of(Path(self.files[0][0]))
        images = self.contents.check(heads, printable(first))
        (values,) = rows_of(images, 0, 1, 1)
        _, height, width, channels = self.contents.pixels(values).shape
        return outline_of_pixels(labels, width, height, grey=channels == 1)

    def identity(self, progress: Progress | None = None) -> str:
        """Return the digest of the files' names and contents, and of the arrays that are read."""
        files = [Path(file) for file, _ in self.files]
        root = Path(os.path.commonpath([file.parent for file in files]))
        content = digest_of_files(root, [str(file.relative_to(root)) for file in files], progress)
        arrays = [self.contents.images, self.contents.labels, self.contents.names]
        return hashlib.sha256(f"{content} {arrays}".encode()).hexdigest()

    def parts(self, rows_per_part: int) -> list[NpzPart]:
        """Split into runs of rows."""
        return [
            NpzPart(pieces, self.contents, self.labels) for pieces in cut_pieces(self.files, rows_per_part)
        ]


def _classes(
    heads: Sequence[dict[str, NpzArray]], contents: NpzContents
) -> tuple[NpzLabels, tuple[str, ...]]:
    """Return the meaning of labels, and the names of classes; () where they are their numbers.

    The labels of downsampled ImageNet begin with 1: they are counted from 0, and keep their numbers as names.
    """
    names: tuple[str, ...] = ()
    if contents.names:
        names = tuple(_texts(whole(heads[0][contents.names])))
    if not contents.labels:
        return NpzLabels(), ()
    arrays = [each[contents.labels] for each in heads]
    if arrays[0].dtype.kind in "US":
        found = {text for array in arrays for text in _texts(np.unique(whole(array)))}
        texts = tuple(in_class_order(found))
        return NpzLabels(texts), texts
    if contents.axes == "planes":
        values = [np.unique(whole(array)) for array in arrays]
        first = int(min(value.min() for value in values))
        if first > 0:
            last = int(max(value.max() for value in values))
            return NpzLabels(first=1), names or tuple(str(label) for label in range(1, last + 1))
    return NpzLabels(), names
