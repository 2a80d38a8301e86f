"""The image files of a data set with their labels, which are given by folders or by a file of labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.source import LeftOut
from cm_ray.data.layouts.dataset_json import LABELS_FILE, ListedLabels
from cm_ray.data.layouts.file_groups import Group, Listing, are_chunks, left_files, left_groups, list_files
from cm_ray.data.layouts.file_kinds import Kind, ending
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.folder_classes import folder_classes
from cm_ray.data.layouts.locate import Place, other_splits
from cm_ray.data.layouts.metadata_file import METADATA_FILES, Annotated, metadata_labels
from cm_ray.data.layouts.split_folders import splits_in_classes
from cm_ray.data.layouts.split_names import keep_split
from cm_ray.data.layouts.synsets import ANNOTATIONS, annotated_synsets, known_synsets, synset_names
from cm_ray.errors import UserError

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".mat")
"""Endings of files that may list labels."""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files and their labels, in a fixed random order.

    Without it, classes would lie one after the other, and a stream that shuffles a few row groups at a time
    would give batches of few classes.
    """

    paths: tuple[str, ...]
    """Paths relative to the root of the data set."""
    labels: tuple[int, ...]
    """Class of each file, -1 where there is none."""
    class_names: tuple[str, ...]
    layout: str
    split: str
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(
        cls,
        paths: list[str],
        labels: list[int],
        class_names: Sequence[str],
        layout: str,
        split: str,
        left_out: tuple[LeftOut, ...],
    ) -> ImageFiles:
        """Permute sorted files."""
        order = np.random.default_rng(0).permutation(len(paths)).tolist()
        return cls(
            tuple(paths[place] for place in order),
            tuple(labels[place] for place in order),
            tuple(class_names),
            layout,
            split,
            left_out,
        )


def find_image_files(place: Place, asked: str, around: Sequence[Folder], *, skip_empty: bool) -> ImageFiles:
    """Return all image files of a place with their labels.

    asked: the split that the user names. around: folders besides the place's trail in which files about the
    classes may lie. skip_empty: leave out class folders in which no image can be read, which are an error
    otherwise. Raises UserError when there are no images, or when it is not clear which labels they have.
    """
    folder = place.folder
    inner, others = ("", []) if place.listed or place.split else splits_in_classes(folder, asked)
    listing = list_files(folder, inner)
    if not (place.listed or place.split or inner):
        inner, others = keep_split(listing, asked, str(folder))
    full = {name: group for name, group in listing.groups.items() if group.images}
    if not (listing.direct.images or full):
        raise _no_images(folder, listing)
    left = (*place.left_out, *other_splits(others, inner))
    split = place.split or inner
    if place.listed:
        paths = sorted(path for group in (listing.direct, *full.values()) for path in group.images)
        labels, layout, unused = _listed(folder, place.listed, paths)
        unused += left_files(listing, (".json", Kind.OTHER))
        return ImageFiles.of(paths, labels, (), layout, split, (*left, *unused))
    if listing.direct.images and full:
        raise _mixed(folder, listing.direct.images[0], min(full))
    if not full or are_chunks(full):
        paths = sorted(path for group in (listing.direct, *full.values()) for path in group.images)
        layout = "image files in numbered folders" if full else "image files"
        found = _annotated(paths, (*reversed(place.trail), *around))
        left = (*left, *_beside(listing, folder, found), *(() if found else _unread_tables(place.trail)))
        return _with_labels(found, paths, layout, split, left)
    empty = {name: group for name, group in listing.groups.items() if not group.images}
    _check_empty(folder, empty, skip_empty)
    classes = folder_classes(full, (*reversed(place.trail), *around))
    paths = [path for name in classes.folders for path in full[name].images]
    labels = [number for number, name in enumerate(classes.folders) for _ in full[name].images]
    left += (*left_files(listing), *left_groups(empty))
    return ImageFiles.of(paths, labels, classes.names, classes.layout, split, left)


def _no_images(folder: Folder, listing: Listing) -> UserError:
    """Return the error for a folder without a single readable image; it says what there is instead."""
    others = listing.others()
    archives = sum(count for (_, kind), count in others.items() if kind is Kind.ARCHIVE)
    endings = sorted({printable(ending) or "none" for ending, _ in others})
    there = f"; the endings of its files are {', '.join(endings[:8])}" if endings else ""
    hint = "unpack its archives, or give one that is a zip" if archives else "give another folder"
    return UserError(f"{folder} holds no images that can be read and no Parquet files{there}; {hint}.")


def _mixed(folder: Folder, image: str, sub: str) -> UserError:
    return UserError(
        f"{folder} holds images both directly ({printable(os.path.basename(image))}) and in the sub-folder "
        f"{printable(sub)!r}; move them into class sub-folders, or all into one folder."
    )


def _check_empty(folder: Folder, empty: dict[str, Group], skip: bool) -> None:
    """Raise UserError for a class folder whose images cannot be read; one without any image is no class."""
    for name in sorted(empty):
        if not skip and empty[name].may_hold_images:
            endings = sorted({printable(ending) or "none" for ending, _ in empty[name].others})
            raise UserError(
                f"{folder.folder(name)} holds no image that can be read (endings: {', '.join(endings)}), so "
                "that its class would be lost; convert its images, remove it, or set on_bad_image to skip."
            )


def _listed(
    folder: Folder, listed: ListedLabels, paths: list[str]
) -> tuple[list[int], str, tuple[LeftOut, ...]]:
    """Return the label of each file in a dataset.json, the layout, and labels without a file."""
    start = len(folder.path) + 1 if folder.path else 0
    names = [path[start:] for path in paths]
    labels = [listed.of(name) for name in names]
    if listed.labels is None:
        return labels, f"image files with a {LABELS_FILE} without labels", ()
    unused = len(listed.labels.keys() - set(names))
    left = (LeftOut(unused, f"labels in {LABELS_FILE}", "their images are not there"),) if unused else ()
    return labels, f"image files with labels in {LABELS_FILE}", left


def _with_labels(
    found: Annotated | None, paths: list[str], layout: str, split: str, left: tuple[LeftOut, ...]
) -> ImageFiles:
    """Return images that lie in no class folders, with the labels of a file, if there is one."""
    if found is None:
        return ImageFiles.of(paths, [-1] * len(paths), (), layout, split, left)
    layout = f"{layout} with labels in {found.file}"
    return ImageFiles.of(paths, found.labels, found.names, layout, split, (*left, *found.left_out))


def _beside(listing: Listing, folder: Folder, found: Annotated | None) -> tuple[LeftOut, ...]:
    """Return the files that are left out, without the one of labels if it is metadata beside the images."""
    used = found.file if found and found.file in METADATA_FILES else ""
    return left_files(listing, *([(ending(used), Kind.OTHER)] if used in folder.entries.files else []))


def _annotated(paths: list[str], folders: Sequence[Folder]) -> Annotated | None:
    """Return the labels of images in one folder by a file of them; None if there is no such file.

    Raises UserError when a file gives only some.
    """
    found = annotated_synsets(folders)
    if not found:
        return metadata_labels(paths, folders)
    place, synsets = found
    files = [os.path.basename(path) for path in paths]
    keys = [file if file in synsets else os.path.splitext(file)[0] for file in files]
    if not (any(key in synsets for key in keys) or place.endswith(ANNOTATIONS)):  # images of another split
        return None
    classes = known_synsets(folders) or sorted({*synsets.values()})
    number = {synset: index for index, synset in enumerate(classes)}
    for file, key in zip(files, keys, strict=True):
        if key not in synsets:
            raise UserError(f"{place} has no class for {printable(file)}; correct it.")
        if synsets[key] not in number:
            raise UserError(
                f"{place} gives {printable(file)} the class {synsets[key]}, which has no folder for "
                "training; correct it."
            )
    unused = len(synsets) - len({*keys})
    left = (LeftOut(unused, "annotations", "their images are not there"),) if unused else ()
    labels = [number[synsets[key]] for key in keys]
    return Annotated(labels, synset_names(classes, folders), left, os.path.basename(place))


def _unread_tables(trail: Sequence[Folder]) -> tuple[LeftOut, ...]:
    """Return the tables above a folder of images without labels: somebody may take them for labels."""
    names = [name for above in trail[:-1] for name in above.entries.files if ending(name) in _TABLES]
    if not names:
        return ()
    shown = ", ".join(printable(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
    noun = "table" if len(names) == 1 else "tables"
    return (LeftOut(len(names), f"{noun} beside the folder of images ({shown})", "not read as labels"),)
