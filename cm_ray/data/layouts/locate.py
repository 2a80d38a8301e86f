"""The way from a given folder to the folder of the images: through wrappers and into a split."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.source import LeftOut
from cm_ray.data.interface.splits import chosen_split, is_hub_name, same_split
from cm_ray.data.layouts.dataset_json import LABELS_FILE, ListedLabels, read_labels
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.split_folders import PLAIN_NAMES, split_folders
from cm_ray.errors import UserError


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of a data set that holds the images or tables to be read."""

    folder: Folder
    trail: tuple[Folder, ...]
    """The folders from the given one to `folder`; files about the classes may lie in each of them."""
    split: str = ""
    """Split word of the folder; "" when it is not that of a split."""
    left_out: tuple[LeftOut, ...] = ()
    """The files and folders beside the trail."""
    listed: ListedLabels | None = None
    """The labels in the folder's dataset.json; None if there is no such file."""

    def inside(self, folder: Folder, split: str = "", *left_out: LeftOut) -> Place:
        """Return the place of a folder inside this one."""
        left = (*self.left_out, *left_out, *_left_folders(self.folder))
        return Place(folder, (*self.trail, folder), split or self.split, left)


def locate(root: Folder, asked: str) -> Place:
    """Return the place of the images or tables, given the folder of a data set.

    The way leads into the split that is asked for (see `chosen_split`), and through folders that hold nothing
    but one other folder. It ends at Parquet files, at a dataset.json and where there are images or classes.
    Raises UserError when a split cannot be chosen.
    """
    place = Place(root, (root,))
    while True:
        folder = place.folder
        listed = read_labels(folder)
        if listed or folder.files.parquet:
            _check_tables(folder)
            return Place(folder, place.trail, place.split, place.left_out, listed)
        if hub := _hub_folder(folder):
            place = place.inside(hub)
            continue
        _check_one_kind(folder)
        if found := split_folders(folder, asked):
            place = _into_split(place, found, asked)
        elif _wraps(place):
            place = place.inside(folder.folders[0])
        else:
            return place


def _hub_folder(folder: Folder) -> Folder | None:
    """Return the sub-folder data/ if it holds Parquet files, as in a repository of the Hugging Face hub."""
    data = folder.folder("data") if "data" in folder.entries.folders else None
    return data if data and data.files.parquet else None


def _check_tables(folder: Folder) -> None:
    """Raise UserError when Parquet files lie beside images, unless their names are those of the hub."""
    below = [sub.name for sub in folder.folders if sub.first_data and sub.first_data.images]
    images = [*folder.files.images[:1], *below]
    tables = folder.files.parquet
    if images and tables and not all(is_hub_name(os.path.splitext(name)[0]) for name in tables):
        raise UserError(
            f"{folder} holds Parquet files ({printable(tables[0])}) and images ({printable(images[0])}); "
            "give the path of a Parquet file, or of a folder that holds nothing else."
        )


def _check_one_kind(folder: Folder) -> None:
    """Raise UserError when some sub-folders hold images and others tables."""
    images = [sub for sub in folder.folders if sub.first_data and sub.first_data.images]
    if images and len(images) < len(folder.folders):
        tables = next(sub for sub in folder.folders if sub not in images)
        raise UserError(
            f"{folder} holds image files (in {printable(images[0].name)}) and tables (in "
            f"{printable(tables.name)}); give one of these folders."
        )


def _into_split(place: Place, found: dict[str, Folder], asked: str) -> Place:
    folder = place.folder
    if place.split:  # seg_train/seg_train
        if len(found) > 1 or not same_split(next(iter(found)), place.split):
            raise UserError(
                f"{folder} belongs to the split {place.split} and holds splits again ({', '.join(found)}); "
                "give one of them."
            )
        return place.inside(next(iter(found.values())))
    word = chosen_split(found, asked, str(folder))
    left = other_splits(sorted(found.keys() - {word}), word)
    if folder.files.images:
        left += (LeftOut(len(folder.files.images), "images beside the folders of splits", "in no split"),)
    return place.inside(found[word], word, *left)


def other_splits(words: list[str], split: str) -> tuple[LeftOut, ...]:
    """Return the splits that are not read, given the one that is."""
    if not words:
        return ()
    noun = "other split" if len(words) == 1 else "other splits"
    return (LeftOut(len(words), f"{noun} ({', '.join(words)})", f"the split {split} is read"),)


def _wraps(place: Place) -> bool:
    """Return True if a folder holds nothing but one other folder, which is no class.

    It is none if classes or tables lie below it, if its name says nothing of images, or repeats that of a
    folder above or inside. The only folder at the top of an archive is none either.
    """
    folder = place.folder
    if folder.files.images or len(folder.folders) != 1:
        return False
    sub = folder.folders[0]
    names = {*PLAIN_NAMES, *(each.name.lower() for each in (*place.trail, *sub.folders[:1]))}
    if "=" in sub.name and not sub.files.images:  # label=3 is a class, if the only one
        return False
    plain = sub.name.lower() in names
    return plain or _branches(sub) or (folder.store.is_archive and not folder.path)


def _branches(folder: Folder) -> bool:
    """Return True if the only way down leads to tables, to a dataset.json or to several folders."""
    while len(folder.folders) == 1 and not folder.files.holds_data:
        if LABELS_FILE in folder.entries.files:
            return True
        folder = folder.folders[0]
    return LABELS_FILE in folder.entries.files or not folder.files.images


def _left_folders(folder: Folder) -> tuple[LeftOut, ...]:
    """Return the sub-folders of a folder that hold no images and no tables."""
    empty = [name for name in folder.entries.folders if not folder.folder(name).first_data]
    if not empty:
        return ()
    shown = ", ".join(printable(name) for name in sorted(empty)[:5]) + (", …" if len(empty) > 5 else "")
    return (LeftOut(len(empty), f"folders ({shown})", "they hold no images"),)
