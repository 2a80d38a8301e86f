"""CIFAR-10 (Krizhevsky 2009) from its official archive, in the binary version: nothing is unpickled."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cm_ray.data.interface.outline import Outline, outline_of_pixels
from cm_ray.data.interface.source import Batch, LeftOut, Progress, ReadOptions, cut_pieces
from cm_ray.data.pictures.images import pixel_batches
from cm_ray.errors import UserError, closest
from cm_ray.storage.files import cache_root, download, locked, remove, written_aside

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
SPLITS = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

_IMAGES = {"train": 50_000, "test": 10_000}
_RECORD = 1 + 3 * 32 * 32  # a label, then the planes red, green, blue


def cifar10_files(split: str, progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """Return the binary files of a split from the cache, after downloading and unpacking them if needed.

    `progress` is called with bytes done and bytes in all. Raises UserError when the archive cannot be
    downloaded; it names the address and the path for a file downloaded by hand.
    """
    folder = cache_root() / "cifar10" / SHA256[:16]
    files = [folder / name for name in SPLITS[split]]
    if all(file.is_file() for file in files):
        return files
    with locked(folder / "lock"):  # the workers of a machine share the cache
        if not all(file.is_file() for file in files):
            archive = download(URL, folder / URL.rsplit("/", 1)[-1], sha256=SHA256, progress=progress)
            _unpack(archive, folder)
            remove(archive)
    return files


def _unpack(archive: Path, folder: Path) -> None:
    """Write the files of records of all splits into `folder`; other members of the archive are ignored."""
    wanted = {name for names in SPLITS.values() for name in names}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if name in wanted else None
            if content is not None:
                with written_aside(folder / name) as aside:
                    aside.write_bytes(content.read())
                wanted.remove(name)
    if wanted:
        raise UserError(f"{archive} lacks {', '.join(sorted(wanted))}; remove it and fetch it again.")


@dataclass(frozen=True, slots=True)
class Cifar10Part:
    """Runs of records (file name, start, stop) of a split."""

    split: str
    pieces: tuple[tuple[str, int, int], ...]

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Yield (n, 32, 32, 3) images; downloads the archive on a machine that does not have it."""
        folder = cifar10_files(self.split)[0].parent
        records = np.concatenate(
            [
                np.fromfile(folder / name, np.uint8, (stop - start) * _RECORD, offset=start * _RECORD)
                for name, start, stop in self.pieces
            ]
        ).reshape(-1, _RECORD)
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        yield from pixel_batches(pixels, records[:, 0], "cifar10", options)


@dataclass(frozen=True, slots=True)
class Cifar10Source:
    """One split of CIFAR-10, "train" or "test". Raises UserError for another split."""

    split: str = "train"
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)
    """Called during the download with bytes done and bytes in all."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"cifar10 has no split {self.split!r}; {closest(self.split, list(SPLITS))}")

    @property
    def name(self) -> str:
        """Name of the source, with its split."""
        return f"cifar10-{self.split}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the ten classes."""
        return CLASS_NAMES

    @property
    def layout(self) -> str:
        """Phrase for the form of the data."""
        return "the binary files of CIFAR-10"

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Nothing: every image of the split is read."""
        return ()

    def outline(self, options: ReadOptions) -> Outline:
        """Return the labels, equally many of each class, and the size of all images, without a download."""
        each = _IMAGES[self.split] // len(CLASS_NAMES)
        return outline_of_pixels(Counter(dict.fromkeys(range(len(CLASS_NAMES)), each)), 32, 32, grey=False)

    def identity(self, progress: Progress | None = None) -> str:
        """Return the SHA-256 of the split and the archive's digest."""
        return hashlib.sha256(f"cifar10 {self.split} {SHA256}".encode()).hexdigest()

    def parts(self, rows_per_part: int) -> list[Cifar10Part]:
        """Split into runs of records; downloads the archive if needed."""
        sizes = []
        for file in cifar10_files(self.split, self.progress):
            rows, rest = divmod(file.stat().st_size, _RECORD)
            if rest or not rows:
                raise UserError(f"{file} is damaged: its size is not whole images; remove it and try again.")
            sizes.append((file.name, rows))
        return [Cifar10Part(self.split, pieces) for pieces in cut_pieces(sizes, rows_per_part)]
