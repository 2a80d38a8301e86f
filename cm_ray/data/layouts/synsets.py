"""Classes of ImageNet and of sets cut from it: WordNet identifiers, their names, and lists of labels."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cm_ray.data.interface.names import class_name
from cm_ray.data.interface.splits import same_split
from cm_ray.data.layouts.file_kinds import ending
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.split_folders import folder_word
from cm_ray.errors import UserError

_SYNSET = re.compile(r"n\d{8}")
_LINE = re.compile(r"(n\d{8})\s+(?:\d+\s+)?(\S.*)")
_MOST_BYTES = 64 << 20
ANNOTATIONS = "val_annotations.txt"
"""Name of the file in which tiny-imagenet lists the classes of its images for validation."""


def are_synsets(names: Iterable[str]) -> bool:
    """Return True if there are names and all are WordNet identifiers such as n01440764."""
    names = list(names)
    return bool(names) and all(_SYNSET.fullmatch(name) for name in names)


def synset_names(synsets: Sequence[str], folders: Sequence[Folder]) -> list[str]:
    """Return the names of synsets in the first file of names that is found in one of the folders.

    Synsets that share a name, as two cranes do, get their identifiers behind it; one without a name keeps its
    identifier, as all do where there is no such file. All splits of a data set give a synset the same name.
    """
    every = {*synsets, *known_synsets(folders)}
    known = next((found for folder in folders if (found := _names_in(folder, every))), {})
    names = {synset: class_name(known.get(synset) or synset) for synset in every}
    counts = Counter(names.values())
    return [
        f"{names[synset]} ({synset})" if counts[names[synset]] > 1 else names[synset] for synset in synsets
    ]


def _names_in(folder: Folder, synsets: set[str]) -> dict[str, str]:
    """Return the names in the first file of a folder that has one for some of the synsets."""
    for word in _NAME_FILES:
        for name in sorted(folder.entries.files):
            read = _READERS.get(ending(name))
            if read and word in name.lower() and synsets & (found := read(_text(folder, name))).keys():
                return found
    return {}


def _text(folder: Folder, name: str) -> str:
    data = folder.read(name, _MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UserError(f"{folder.place}/{name} has more than {_MOST_BYTES >> 20} MiB; give a shorter file.")
    return data.decode("utf-8-sig", "replace")


def _lines(text: str) -> dict[str, str]:
    """Read lines of a synset, white space and its name; a number may stand before the name."""
    found = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {line[1]: line[2] for line in found if line}


def _class_index(text: str) -> dict[str, str]:
    """Read JSON of the form {"0": ["n01440764", "tench"]} or {"n01440764": "tench"}."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content if isinstance(content, list) else [])
    )
    pairs = [value if isinstance(value, list) and len(value) == 2 else (key, value) for key, value in items]
    return {
        key: name
        for key, name in pairs
        if isinstance(key, str) and isinstance(name, str) and _SYNSET.fullmatch(key)
    }


_READERS: dict[str, Callable[[str], dict[str, str]]] = {".txt": _lines, ".json": _class_index}
_NAME_FILES = ("synset", "words", "class_index", "clsloc", "labels", "names", "classes")
"""Words in the names of files with names of synsets, such as LOC_synset_mapping.txt; the first come first."""


def annotated_synsets(folders: Iterable[Folder]) -> tuple[str, dict[str, str]] | None:
    """Return the synset of each image that a file in one of the folders lists, and the file's place.

    The file is val_annotations.txt of tiny-imagenet (file name, synset, box) or LOC_val_solution.csv of
    ImageNet on Kaggle (file name without its ending, synset, box). None if there is no such file.
    """
    for folder in folders:
        for file, read in ((ANNOTATIONS, _tabbed), ("LOC_val_solution.csv", _solution)):
            if file in folder.entries.files:
                return f"{folder.place}/{file}", read(_text(folder, file))
    return None


def _tabbed(text: str) -> dict[str, str]:
    rows = (line.split("\t") if "\t" in line else line.split() for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 1 and _SYNSET.fullmatch(row[1])}


def _solution(text: str) -> dict[str, str]:
    found = {}
    for row in csv.reader(text.splitlines()):
        words = row[1].split() if len(row) > 1 else []
        if words and _SYNSET.fullmatch(words[0]):
            found[row[0]] = words[0]
    return found


def known_synsets(folders: Iterable[Folder]) -> list[str]:
    """Return the sorted synsets of the class folders for training, or else of wnids.txt; [] without both."""
    for folder in folders:
        for name in (*folder.entries.folders, *folder.entries.links):
            if same_split(folder_word(name), "train"):
                inside = folder.folder(name).entries
                if found := [each for each in (*inside.folders, *inside.links) if _SYNSET.fullmatch(each)]:
                    return sorted(found)
        if "wnids.txt" in folder.entries.files:
            return sorted({line.strip() for line in _text(folder, "wnids.txt").splitlines() if line.strip()})
    return []
