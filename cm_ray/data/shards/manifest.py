"""Shards, the storage of images for training: Parquet files of raw pixels, and a manifest.

A shard has the columns `image`, fixed_size_binary(c*h*w) with the bytes in CHW order, and `label`, int64
(-1: none). Nothing is compressed: raw pixels barely shrink, and uncompressed pages are faster to read than
lz4 and zstd. The pages carry checksums: checking them costs more than reading, but a reader is still much
faster than training.
Rows lie in a random order (see `permutation`); readers of streams shuffle again (see `order`), and readers of
all images give them back in the order of the source.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_ray.data.interface.arrow import pa, pq
from cm_ray.data.interface.fingerprint import fingerprint
from cm_ray.data.interface.permutation import Permutation
from cm_ray.data.interface.reading import Reading
from cm_ray.data.interface.source import Labels, Pixels
from cm_ray.errors import UserError
from cm_ray.remote.files import is_there, opened, read_bytes, sizes
from cm_ray.settings.tree import from_dict
from cm_ray.settings.values import cast
from cm_ray.storage.files import is_address, parse_json, read_json, sha256_of, write_json

FORMAT = 2
MANIFEST = "manifest.json"
_GROUP_ROWS, _GROUP_BYTES = 1024, 1 << 23
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of images."""

    file: str
    """Name inside the folder."""
    rows: int
    """Number of images in it."""
    bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 of the file."""
    content: str
    """Sum, modulo 2^256 and in hex, of the SHA-256 of every row's pixels and label (int64, little-endian):
    sums of shards add up, so the whole does not depend on how it was cut or ordered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Contents of a folder of shards."""

    shape: Shape
    """(c, h, w) of every image."""
    class_names: tuple[str, ...]
    """Name of each class; empty when the images have no labels."""
    class_counts: tuple[int, ...] = ()
    """Number of images of each class; empty when the images have no labels."""
    source: str
    """Name of the data set."""
    recipe: str
    """Digest of the source's identity and of the options: equal recipes make equal shards."""
    skipped: int
    """Number of bad images that were left out."""
    shards: tuple[Shard, ...]
    """The files, in order."""
    permutation: Permutation | None = None
    """Order of the rows; None when they lie in the order of the source."""
    reading: Reading = field(default_factory=Reading)
    """The background and the bits that image files were read with."""
    transparent: int = 0
    """Number of images through which the background is seen."""
    profiles_ignored: int = 0
    """Number of images with a colour profile that is damaged or does not fit."""
    survey: tuple[str, ...] = ()
    """The lines of the `Survey` that was made of the source before its images were read."""
    format: int = FORMAT
    """Version of this layout."""

    def __post_init__(self) -> None:
        """Raise ValueError when classes, their counts and the permutation do not fit the shards."""
        if self.permutation and sum(self.permutation.parts) != self.count:
            raise ValueError(f"a permutation of {sum(self.permutation.parts)} images of {self.count}")
        if len(self.class_counts) != len(self.class_names) or any(count < 0 for count in self.class_counts):
            raise ValueError(f"counts {self.class_counts} of the classes {self.class_names}")
        if self.class_names and sum(self.class_counts) != self.count:
            raise ValueError(f"{sum(self.class_counts)} labelled images of {self.count}")

    @property
    def count(self) -> int:
        """Number of images in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def classes(self) -> int:
        """Number of classes; 0 when the images have no labels."""
        return len(self.class_names)

    @property
    def pixel_bytes(self) -> int:
        """Size of all images as raw pixels, in bytes."""
        return self.count * math.prod(self.shape)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the images and labels, whatever their order and the sizes and format of the files."""
        return fingerprint(self.shape, self.count, [shard.content for shard in self.shards])

    def places(self) -> NDArray[np.int64]:
        """Return the place of each row in the order of the source, (count,)."""
        return self.permutation.places() if self.permutation else np.arange(self.count)

    def save(self, folder: Path) -> None:
        """Write manifest.json, with derived numbers for human readers."""
        derived = {"count": self.count, "classes": self.classes, "fingerprint": self.fingerprint}
        write_json(folder / MANIFEST, {**asdict(self), **derived})

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read manifest.json. Raises UserError on no shards, on another format and on missing files."""
        if not is_shard_folder(folder):
            raise UserError(f"{folder} holds no shards ({MANIFEST}); make them with cm-ray shards.")
        content = _content(folder)
        version = content.get("format") if isinstance(content, dict) else None
        if version != FORMAT:
            raise UserError(f"{folder / MANIFEST} is of format {version}, not {FORMAT}: make shards anew.")
        manifest = cls._from(content, folder)
        there = sizes(folder, [shard.file for shard in manifest.shards])
        for shard in manifest.shards:
            if shard.file not in there:
                raise UserError(f"{folder / shard.file} is missing; restore it or make the shards again.")
        return manifest

    @classmethod
    def _from(cls, content: dict[str, Any], folder: Path) -> Manifest:
        try:
            plain = {name: cast(content[name], hint, name) for name, hint in _PLAIN.items()}
            shards = tuple(from_dict(Shard, shard) for shard in content["shards"])
            _check_sizes(plain["shape"], shards)
            return cls(
                **plain,
                shards=shards,
                permutation=Permutation.from_dict(content["permutation"]),
                reading=from_dict(Reading, content["reading"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{folder / MANIFEST} is not a manifest of shards ({reason}); make the shards again."
            ) from error


_PLAIN = {
    "shape": tuple[int, ...],
    "class_names": tuple[str, ...],
    "class_counts": tuple[int, ...],
    "source": str,
    "recipe": str,
    "skipped": int,
    "transparent": int,
    "profiles_ignored": int,
    "survey": tuple[str, ...],
}
"""Types of the fields that are read as they are."""


def _check_sizes(shape: tuple[int, ...], shards: tuple[Shard, ...]) -> None:
    """Raise ValueError when files could not hold the images that they are said to hold."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"the shape {shape}")
    if not shards or any(Path(shard.file).name != shard.file or not shard.file for shard in shards):
        raise ValueError("the files of the shards")
    for shard in shards:
        int(shard.content, 16)
        if not 0 <= shard.rows * math.prod(shape) <= shard.bytes:
            raise ValueError(f"{shard.rows} images of {shape} in {shard.bytes} bytes")


def rows_per_group(shape: Shape) -> int:
    """Return the number of rows of a row group, which is read as a whole: 1,024, or 8 MiB of large images."""
    return min(_GROUP_ROWS, max(16, _GROUP_BYTES // math.prod(shape)))


def is_shard_folder(folder: Path) -> bool:
    """Return True if a folder has a manifest of shards; other programs have files of this name, too."""
    if not is_there(folder / MANIFEST):
        return False
    try:
        content = _content(folder)
    except UserError:
        return is_address(folder) or any(folder.glob("shard-*.parquet"))  # reading it names the damage
    return isinstance(content, dict) and {"format", "shards"} <= content.keys()


def _content(folder: Path) -> Any:
    """Return what the manifest of a folder or an address holds. Raises UserError when it is damaged."""
    file = folder / MANIFEST
    return parse_json(read_bytes(file), file) if is_address(file) else read_json(file)


def schema_of(shape: Shape) -> pa.Schema:
    """Return the columns of a shard: ``image``, fixed-size binary (c*h*w), and ``label``, int64."""
    return pa.schema([("image", pa.binary(math.prod(shape))), ("label", pa.int64())])


def check_shards(folder: Path, manifest: Manifest, *, full: bool = False) -> None:
    """Compare the files with the manifest: sizes, and with `full` the SHA-256.

    Raises UserError naming the first shard that is missing, cut off or altered.
    """
    there = sizes(folder, [shard.file for shard in manifest.shards])
    for shard in manifest.shards:
        path = folder / shard.file
        if shard.file not in there:
            raise UserError(f"{path} is missing; restore it or make the shards again.")
        if there[shard.file] != shard.bytes:
            raise UserError(
                f"{path} has {there[shard.file]} bytes, not {shard.bytes}; "
                "restore it or make the shards again."
            )
        if full and sha256_of(path) != shard.sha256:
            raise UserError(f"{path} is corrupt (another SHA-256); restore it or make the shards again.")


def read_rows(
    path: Path, start: int, stop: int, shape: Shape, *, verify: bool = True
) -> tuple[Pixels, Labels]:
    """Read rows `start` to `stop` of a shard, and no row groups but those that hold them.

    Returns images (n, c, h, w) and labels (n,); the images may be a read-only view. `verify` checks the
    pages' checksums. Raises UserError naming the shard when it is missing, corrupt or cut off, or does
    not have these rows or this shape.
    """
    try:
        how = {"page_checksum_verification": verify, "pre_buffer": is_address(path)}
        with opened(path) as file, pq.ParquetFile(file, **how) as parquet:
            return _read(path, parquet, start, stop, shape)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{path} is missing, cut off or corrupt ({reason}); restore it or make the shards again."
        ) from error


def _read(path: Path, parquet: pq.ParquetFile, start: int, stop: int, shape: Shape) -> tuple[Pixels, Labels]:
    rows = parquet.metadata.num_rows
    if not (parquet.schema_arrow.equals(schema_of(shape)) and 0 <= start <= stop <= rows):
        raise UserError(
            f"{path} does not hold rows {start} to {stop} of {'x'.join(map(str, shape))} images, "
            f"as its manifest says (it has {rows} rows); restore it or make the shards again."
        )
    first, position = 0, 0
    groups: list[int] = []
    for index in range(parquet.num_row_groups):
        end = position + parquet.metadata.row_group(index).num_rows
        if end > start and position < stop:
            first = first if groups else position
            groups.append(index)
        position = end
    if not groups:
        return np.empty((0, *shape), np.uint8), np.empty(0, np.int64)
    table = parquet.read_row_groups(groups, use_threads=False).slice(start - first, stop - start)
    if table.num_rows != stop - start:
        raise OSError(f"{table.num_rows} rows instead of {stop - start}")
    images = [_pixels(chunk, shape) for chunk in table["image"].chunks]
    return images[0] if len(images) == 1 else np.concatenate(images), table["label"].to_numpy()


def _pixels(chunk: pa.FixedSizeBinaryArray, shape: Shape) -> Pixels:
    """Return the buffer of a column's chunk as a view of images; a slice shares its parent's buffer."""
    size = math.prod(shape)
    flat = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * size, offset=chunk.offset * size)
    return flat.reshape(len(chunk), *shape)


def load_all(folder: Path, manifest: Manifest | None = None) -> tuple[Pixels, Labels]:
    """Read every shard of a folder: images (n, c, h, w) and labels (n,), in the order of the source.

    Raises UserError as `read_rows`.
    """
    manifest = manifest or Manifest.load(folder)
    images = np.empty((manifest.count, *manifest.shape), np.uint8)
    labels = np.empty(manifest.count, np.int64)
    places, done, step = manifest.places(), 0, rows_per_group(manifest.shape)
    for shard in manifest.shards:
        for start in range(0, shard.rows, step):  # reading a whole shard at once would need more memory
            stop = min(shard.rows, start + step)
            here = places[done + start : done + stop]
            images[here], labels[here] = read_rows(folder / shard.file, start, stop, manifest.shape)
        done += shard.rows
    return images, labels
