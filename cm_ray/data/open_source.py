"""Sources by name or path: a named data set, a folder or an archive of image files, tables of images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.interface.source import Progress, Source
from cm_ray.data.interface.splits import chosen_split, same_split, split_word
from cm_ray.data.layouts.archive_source import ArchiveSource
from cm_ray.data.layouts.archive_tree import ArchiveTree
from cm_ray.data.layouts.disk import Disk, reading
from cm_ray.data.layouts.file_kinds import Kind, kind_of
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.folder import FolderSource
from cm_ray.data.layouts.image_files import find_image_files
from cm_ray.data.layouts.locate import locate
from cm_ray.data.layouts.split_folders import folder_word
from cm_ray.data.layouts.tar_archive import TarArchive
from cm_ray.data.layouts.zip_archive import ZipArchive
from cm_ray.data.named.cifar10 import SPLITS, Cifar10Source
from cm_ray.data.named.digits import DigitsSource
from cm_ray.data.pictures.image_formats import SIGNATURE_BYTES
from cm_ray.data.shards.manifest import is_shard_folder
from cm_ray.data.tables.open_tables import Table, open_samples, open_table, open_tables
from cm_ray.data.tables.webdataset_samples import is_webdataset
from cm_ray.errors import UserError, closest
from cm_ray.storage.files import is_address

DEFAULT = ReadOptions()
NAMED = ("cifar10", "digits")
_MAGIC = {b"PAR1": Kind.PARQUET, b"PK\x03\x04": Kind.ARCHIVE}
_Found = TypeVar("_Found", FolderSource, ArchiveSource, Table)
_WANTED = "a folder, a zip or a tar archive of images, a Parquet file or a folder of them, or an .npz file"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of files that are compressed whole."""


def open_source(
    path_or_name: str,
    split: str = "",
    progress: Progress | None = None,
    *,
    options: ReadOptions = DEFAULT,
) -> Source:
    """Open a data set by its name (digits, cifar10), or images at a path.

    A path is a Parquet file, an .npz file, a folder of Parquet files, a folder of image files, a folder of
    one sub-folder of image files per class, a folder that holds one of these for each split, a zip or tar
    archive of image files in these layouts, or tar archives of samples (WebDataset); docs/own_images.md
    describes all of them. A name comes before a folder of the same name: write ./digits for the folder.
    split: a word such as train, val or test; "" takes that of the options, else the split for training where
    there are splits, or the only one. `progress` is called
    with bytes done and bytes in all if `parts` has to download something. options: the columns of tables;
    where bad images are skipped, class folders in which no image can be read are left out. Raises UserError
    when there are no such images, no such split or no such columns.
    """
    source = _opened(path_or_name, split or options.split, progress, options)
    if options.columns and not isinstance(source, Table):
        raise UserError(
            f"{printable(path_or_name)} has no columns, but data.image_column or data.label_column names "
            "one; leave it out."
        )
    return source


def _opened(path_or_name: str, split: str, progress: Progress | None, options: ReadOptions) -> Source:
    if path_or_name == "cifar10":
        return Cifar10Source(chosen_split(SPLITS, split, path_or_name), progress)
    if path_or_name == "digits":
        return DigitsSource(chosen_split(("train",), split, path_or_name))
    if is_address(path_or_name):
        raise UserError(
            f"{printable(path_or_name)} holds no shards, and nothing else is read from an address: make "
            "shards of the images by cm-ray shards, and copy their folder there."
        )
    path = Path(path_or_name).expanduser()
    if not path_or_name or not os.path.exists(path):
        raise _missing(path_or_name)
    path = Path(os.path.abspath(path))
    if path.is_file():
        return _open_file(path, split, options)
    if is_shard_folder(path):
        raise UserError(
            f"{printable(str(path))} holds shards already; use it as it is, without making shards of it."
        )
    return _open_folder(path, split, options)


def _missing(path_or_name: str) -> UserError:
    hint = closest(path_or_name, list(NAMED))
    give = f"give the path of {_WANTED}."
    shown = printable(path_or_name)
    if Path(path_or_name).name != path_or_name:
        return UserError(f"There is no {shown}; {give}")
    return UserError(
        f"There is no data set and no path {shown!r}; {hint.rstrip('.')}"
        + ("" if hint.endswith("?") else f", or {give}")
    )


def _open_file(path: Path, split: str, options: ReadOptions) -> Source:
    kind = _kind(path)
    if kind is Kind.ARCHIVE:
        return _open_archive(ZipArchive(path), path, split, options)
    if kind is Kind.TAR:
        archive = TarArchive(path)
        if is_webdataset(archive):
            return _with_split(open_samples(archive, options.columns), split, path)
        return _open_archive(archive, path, split, options)
    if kind in (Kind.PARQUET, Kind.NPZ):
        return _with_split(open_table(path, split, options.columns), split, path)
    raise UserError(f"{printable(str(path))} is a file; give {_WANTED}.")


def _open_archive(archive: ArchiveTree[Any], path: Path, split: str, options: ReadOptions) -> ArchiveSource:
    """Open the image files in an archive, which lie in it as in a folder."""
    place = locate(Folder(archive), split)
    if place.folder.first_data and not place.folder.first_data.images:
        raise UserError(f"{place.folder} holds tables; unpack the archive and give the folder.")
    found = find_image_files(place, split, (), skip_empty=options.on_bad_image == "skip")
    name = printable(_name(archive.name, found.split))
    return _with_split(ArchiveSource.of(archive, name, found), split, path)


def _kind(path: Path) -> Kind:
    """Return the kind of a file, by its content where its ending does not tell."""
    with reading(path), path.open("rb") as file:
        head = file.read(SIGNATURE_BYTES)
    if path.suffix.lower() == ".parquet":  # also metadata.parquet, which is no table beside images
        return Kind.PARQUET
    kind = kind_of(path.name, lambda: head)
    if packed := next((word for magic, word in _COMPRESSED.items() if head.startswith(magic)), ""):
        raise UserError(
            f"{printable(str(path))} is compressed by {packed}; decompress it, or unpack it and give the "
            "folder."
        )
    if kind is Kind.ARCHIVE:
        return kind if path.suffix.lower() == ".zip" else Kind.OTHER
    if kind is Kind.UNKNOWN:
        return next((found for magic, found in _MAGIC.items() if head.startswith(magic)), kind)
    return kind


def _open_folder(path: Path, split: str, options: ReadOptions) -> Source:
    place = locate(Folder(Disk(str(path))), split)
    if tables := open_tables(place, path, split, options.columns):
        return _with_split(tables, split, path)
    around = [Folder(Disk(str(path.parent)))] if folder_word(path.name) else []
    found = find_image_files(place, split, around, skip_empty=options.on_bad_image == "skip")
    name = printable(_name(path.name, found.split))
    return _with_split(FolderSource.of(path, name, found), split, path)


def _name(base: str, split: str) -> str:
    return f"{base}-{split}" if split else base


def _with_split(source: _Found, asked: str, path: Path) -> _Found:
    """Return a source whose split is the one asked for, by its content or by the name of its path."""
    word = source.split or split_word(path.stem if path.is_file() else path.name)
    if not asked or (word and same_split(word, asked)):
        return replace(source, split=word) if asked else source
    why = f"it belongs to {word}" if source.split else "it is not divided into splits"
    raise UserError(f"{printable(str(path))} has no split {asked!r}, since {why}; leave split out.")
