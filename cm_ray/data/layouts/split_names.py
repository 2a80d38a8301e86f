"""Splits that the names of image files tell: train_0001.png, test_0001.png."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cm_ray.data.interface.splits import chosen_split, same_split, split_word
from cm_ray.data.layouts.file_groups import Listing


def keep_split(listing: Listing, asked: str, place: str) -> tuple[str, list[str]]:
    """Keep the images of one split in a listing; return its word and the words of the others.

    ("", []) if the names of files tell no splits: each must begin or end with the word of one, and each class
    must have images of the one that is read, unless a split is asked for. asked, place: see `chosen_split`.
    Raises UserError when there is no such split.
    """
    groups = [group for group in (listing.direct, *listing.groups.values()) if group.images]
    if any(not _word(path) for group in groups for path in group.images):  # the first one is told at once
        return "", []
    words = [{_word(path) for path in group.images} for group in groups]
    known = sorted(set[str]().union(*words))
    if all(same_split(word, known[0]) for word in known):
        return "", []
    if not any(_differ(sorted(each)) for each in words):  # classes such as train and test tube
        return "", []
    split = chosen_split(known, asked, place)
    if not (asked or all(split in each for each in words)):
        return "", []
    for group in groups:
        group.images = [path for path in group.images if _word(path) == split]
    return split, [word for word in known if word != split]


def _word(path: str) -> str:
    return split_word(os.path.splitext(os.path.basename(path))[0])


def _differ(words: Sequence[str]) -> bool:
    return any(not same_split(word, words[0]) for word in words)
