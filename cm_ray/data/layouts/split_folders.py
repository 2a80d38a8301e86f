"""Folders that are splits of a data set, told from folders that are classes."""

from __future__ import annotations

import re

from cm_ray.data.interface.names import printable
from cm_ray.data.interface.splits import SPLIT_KEYS, chosen_split, same_split, split_word
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.errors import UserError

PLAIN_NAMES = frozenset(
    (
        *("images", "image", "imgs", "img", "pictures", "pics", "photos", "files", "data", "default"),
        *("jpegimages", "jpegs", "jpeg", "jpg", "png"),
    )
)
"""Names of folders, in small letters, that say nothing of the images in them: such a folder is no class."""

_NO_LETTERS = re.compile(r"[\W\d_]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_RESTS = frozenset(("set", "sets", "dataset", "split", "samples", "full", "all", *PLAIN_NAMES))


def folder_word(name: str) -> str:
    """Return the split word of a folder's name; of `key=value`, only if the key is a word for splits."""
    key, equals, value = name.partition("=")
    if equals:
        return split_word(value) if key.lower() in SPLIT_KEYS else ""
    return split_word(name)


def split_folders(folder: Folder, asked: str) -> dict[str, Folder]:
    """Return the sub-folders that are splits, by their words; {} when the sub-folders are something else.

    Only sub-folders with images or tables count. They are splits if each has a split word. Otherwise a single
    one with a split word is a class of that name, unless it holds classes itself and the others hold the same
    ones or none. asked: the split that the user names. Raises UserError when several belong to the same split
    and, unless a split is asked for, when some sub-folders are splits and others are not, or when all of them
    could be classes as well.
    """
    named = [(folder_word(sub.name), sub) for sub in folder.folders]
    others = [sub for word, sub in named if not word]
    known = [(word, sub) for word, sub in named if word]
    words = {word for word, _ in known}
    if not known or (len(words) == 1 and not _is_one_split(folder, [sub for _, sub in known], others)):
        return {}
    twice = next((word for word in sorted(words) if sum(word == each for each, _ in known) > 1), None)
    if twice:
        raise UserError(
            f"{folder} has several folders of the split {twice} "
            f"({_names([sub for word, sub in known if word == twice])}); give one of them, or move their "
            "content into one."
        )
    if others and not asked:
        raise UserError(
            f"{folder} holds splits ({_names([sub for _, sub in known])}) and folders that are none "
            f"({_names(others)}); choose one of them with split."
        )
    if not asked and _could_be_classes(dict(known)):
        raise UserError(
            f"{folder} holds folders ({_names([sub for _, sub in known])}) that could be splits or classes; "
            "choose a split, or give the classes other names."
        )
    return dict(known) | {printable(sub.name): sub for sub in others}


def _could_be_classes(splits: dict[str, Folder]) -> bool:
    """Return True for folders such as bullet_train and crash_test, of other words and without classes."""
    rest = {
        frozenset(_LETTERS.findall(sub.name.lower().partition("=")[2] or sub.name.lower())) - {word} - _RESTS
        for word, sub in splits.items()
    }
    flat = all(sub.files.images and not sub.folders for sub in splits.values())
    return flat and len(rest) > 1


def _is_one_split(folder: Folder, known: list[Folder], others: list[Folder]) -> bool:
    """Return True if folders of one split word are a split, False if they are classes."""
    if len(known) > 1:  # train1 and train2 are pieces of a split, bullet_train and freight_train are classes
        return len({_NO_LETTERS.sub("", sub.name.lower()) for sub in known}) == 1
    if folder.files.images:
        return False
    return not others or _is_like_split(known[0], others)


def _is_like_split(split: Folder, others: list[Folder]) -> bool:
    """Return True if a folder holds classes that the other folders hold too, or that some have none of."""
    classes = {sub.name for sub in split.folders} - PLAIN_NAMES
    return len(classes) > 1 and any(
        not other.folders or classes & {sub.name for sub in other.folders} for other in others
    )


def _names(folders: list[Folder]) -> str:
    names = [printable(folder.name) for folder in folders]
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def splits_in_classes(folder: Folder, asked: str) -> tuple[str, list[str]]:
    """Return the split to be read and the others where every class folder holds folders of splits.

    ("", []) if none does. Raises UserError when only some class folders do, when one lacks the split, and,
    unless a split is asked for, when one holds other folders beside those of splits.
    """
    held = {sub.name: _split_words(sub, asked) for sub in folder.folders}
    with_splits = [name for name, words in held.items() if words]
    if not with_splits:
        return "", []
    if len(with_splits) < len(held):
        if all(len(held[name]) == 1 for name in with_splits):  # a class may hold a folder of trains
            return "", []
        odd = next(name for name, words in held.items() if not words)
        raise UserError(
            f"{folder} holds splits in {printable(with_splits[0])}, but none in {printable(odd)}; divide all "
            "classes into splits, or none."
        )
    known = {word for words in held.values() for word in words}
    split = chosen_split(known, asked, str(folder))
    for name, words in held.items():
        if not any(same_split(word, split) for word in words):
            raise UserError(f"{folder.folder(name)} has no split {split!r}, but other classes do; add it.")
    return split, sorted(word for word in known if not same_split(word, split))


def _split_words(folder: Folder, asked: str) -> set[str]:
    """Return the split words of the folders in a class folder; none when they are not splits."""
    if folder.files.images:
        return set()
    words = {sub.name: folder_word(sub.name) for sub in folder.folders}
    found = {word for word in words.values() if word}
    if all(words.values()) or (asked and len(found) > 1):
        return found
    if len(found) > 1:
        others = [sub for sub in folder.folders if not words[sub.name]]
        raise UserError(
            f"{folder} holds splits ({', '.join(sorted(found))}) and folders that are none "
            f"({_names(others)}); choose one of them with split."
        )
    return set()
