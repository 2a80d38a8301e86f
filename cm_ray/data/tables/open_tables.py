"""Parquet, .npz and tar files of a data set: those of a split, and those in folders of classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cm_ray.data.interface.columns import NO_LABELS, Columns
from cm_ray.data.interface.names import class_name, in_class_order, printable
from cm_ray.data.interface.splits import files_of_split, split_word
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.folder_classes import hive_values
from cm_ray.data.layouts.locate import Place, other_splits
from cm_ray.data.layouts.split_folders import folder_word
from cm_ray.data.layouts.tar_archive import TarArchive
from cm_ray.data.shards.manifest import MANIFEST
from cm_ray.data.tables.hive_source import HiveSource
from cm_ray.data.tables.npz import NpzSource
from cm_ray.data.tables.parquet import ParquetSource
from cm_ray.data.tables.webdataset import WebDatasetSource
from cm_ray.errors import UserError

_NUMBER = re.compile(r"[0-9]+")
Table = ParquetSource | NpzSource | HiveSource | WebDatasetSource


def open_table(path: Path, asked: str, columns: Columns) -> Table:
    """Open one file; its split is told by the names of its arrays, or by a word in its own name."""
    found = _opened([path], printable(path.stem), columns, asked)
    return replace(found, split=found.split or split_word(path.stem))


def open_samples(archive: TarArchive, columns: Columns) -> WebDatasetSource:
    """Open the samples of one archive; its split is told by a word in its name."""
    path = Path(archive.archive)
    found = WebDatasetSource.open([path], printable(path.stem), columns, archive)
    return replace(found, split=split_word(path.stem))


def open_tables(place: Place, root: Path, asked: str, columns: Columns) -> Table | None:
    """Open the tables of a place below the folder `root`; None when it holds image files instead.

    asked: the split that the user names. columns: those that the user names. Raises UserError when there is
    no such split, and when it is not clear which files belong together.
    """
    folder = place.folder
    images = folder.files.images or any(sub.first_data.images for sub in folder.folders if sub.first_data)
    files = folder.files.parquet or ([] if images else folder.files.npz or folder.files.tars)
    if files and MANIFEST in folder.entries.files:
        raise UserError(f"{folder} holds shards; give its own path, as shards are used as they are.")
    if files:
        return _of_split([root / path for path in folder.paths(files)], place, root, asked, columns)
    if images or not folder.folders:
        return None
    name = printable(f"{root.name}-{place.split}" if place.split else root.name)
    return _in_folders(place, root, name, asked, columns)


def _of_split(paths: list[Path], place: Place, root: Path, asked: str, columns: Columns) -> Table:
    """Open those of some files that belong to the split of their folder, or to the one asked for."""
    wanted = place.split or asked
    chosen, split, others = files_of_split([path.stem for path in paths], wanted, str(place.folder))
    split = place.split or split
    left = place.left_out + other_splits(others, split)
    name = printable(f"{root.name}-{split}" if split else root.name)
    found = _opened([paths[i] for i in chosen], name, columns, wanted)
    return replace(found, split=split or found.split, left_out=left + found.left_out)


def _opened(
    paths: list[Path], name: str, columns: Columns, asked: str
) -> ParquetSource | NpzSource | WebDatasetSource:
    if paths[0].suffix.lower() == ".tar":
        return WebDatasetSource.open(paths, name, columns)
    if paths[0].suffix.lower() != ".npz":
        return ParquetSource.open(paths, name, columns)
    if len({_NUMBER.sub("", path.stem) for path in paths}) > 1:
        names = ", ".join(printable(path.name) for path in paths[:5])
        raise UserError(
            f"{printable(str(paths[0].parent))} holds several .npz files ({names}); give one of them."
        )
    in_order = sorted(paths, key=lambda path: [int(number) for number in _NUMBER.findall(path.stem)])
    return NpzSource.open(in_order, name, columns, asked)


def _in_folders(place: Place, root: Path, name: str, asked: str, columns: Columns) -> Table:
    """Open Parquet files in folders `key=value`; a key such as label gives the classes."""
    folder = place.folder
    below = {sub.name: _parquet_below(sub) for sub in folder.folders}
    if not all("=" in sub for sub in below):
        names = [printable(sub) for sub in below]
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise UserError(f"{folder} holds tables in several folders ({shown}); give one of them.")
    words, split, others = _split_below(place, below, asked)
    files = {sub: [root / path for path in paths if path in words] for sub, paths in below.items()}
    files = {sub: paths for sub, paths in files.items() if paths}
    if split and not place.split:
        name = printable(f"{root.name}-{split}")
    keys = {sub.partition("=")[0] for sub in files}
    given = columns.label if columns.label in keys else ""
    found: Table
    if (given or not columns.label) and (values := hive_values(files, given)):
        named = {class_name(value): files[sub] for sub, value in values.items()}
        wanted = replace(columns, label=NO_LABELS if given else "")
        found = HiveSource.open({each: named[each] for each in in_class_order(named)}, name, wanted)
    else:
        found = ParquetSource.open([path for paths in files.values() for path in paths], name, columns)
    left = (*place.left_out, *other_splits(others, split), *found.left_out)
    return replace(found, split=split, left_out=left)


def _split_below(
    place: Place, below: Mapping[str, Sequence[str]], asked: str
) -> tuple[set[str], str, list[str]]:
    """Return the files of the split that is read, its word and the words of the others.

    The split of a file is told by the folders between it and the place, or else by its name.
    """
    paths = [path for each in below.values() for path in each]
    start = len(place.folder.path) + 1 if place.folder.path else 0
    inner = [path[start:].split("/")[:-1] for path in paths]
    stems = [
        next((folder for folder in reversed(folders) if folder_word(folder)), Path(path).stem)
        for folders, path in zip(inner, paths, strict=True)
    ]
    stems = [stem.partition("=")[2] or stem for stem in stems]
    chosen, split, others = files_of_split(stems, place.split or asked, str(place.folder))
    return {paths[i] for i in chosen}, place.split or split, others


def _parquet_below(folder: Folder) -> list[str]:
    return sorted(path for each in folder.walk() for path in each.paths(each.files.parquet))
