"""Labels in the metadata.csv or metadata.jsonl beside images, as in folders for the Hugging Face hub."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cm_ray.data.interface.columns import ColumnChoice
from cm_ray.data.interface.names import class_name, in_class_order, printable
from cm_ray.data.interface.source import LeftOut
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.errors import UserError
from cm_ray.storage.files import parse_json

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
_FILE = "file_name"
_MOST_BYTES = 1 << 28
_Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Annotated:
    """Labels of images that a file gives."""

    labels: list[int]
    names: Sequence[str]
    """Names of the classes."""
    left_out: tuple[LeftOut, ...]
    file: str
    """Name of the file."""


def metadata_labels(paths: Sequence[str], folders: Iterable[Folder]) -> Annotated | None:
    """Return the labels in the first file of metadata in one of the folders; None if there are none.

    paths: the images, relative to the root, as the folders are. The file has a column file_name with paths
    relative to its folder, and a column of labels, which name the classes. Raises UserError when an image has
    no label, and on a damaged file.
    """
    for folder in folders:
        for file in (name for name in METADATA_FILES if name in folder.entries.files):
            where = f"{folder}/{file}"
            rows = _rows(folder, file, where)
            columns = list(dict.fromkeys(name for row in rows for name in row))
            label = ColumnChoice(where, advice="keep one of them").labels(columns)
            if _FILE in columns and label:
                return _annotated(paths, folder, file, _texts(rows, label, where))
    return None


def _rows(folder: Folder, file: str, where: str) -> list[_Row]:
    data = folder.read(file, _MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UserError(f"{where} has more than {_MOST_BYTES >> 20} MiB; give a shorter file.")
    lines = data.decode("utf-8-sig", "replace").splitlines()
    if file.endswith(".csv"):
        try:
            return [{name: text for name, text in row.items() if name} for row in csv.DictReader(lines)]
        except csv.Error as error:
            raise UserError(f"{where} is not a table of values with commas ({error}); correct it.") from error
    rows = [parse_json(line, where) for line in lines if line.strip()]
    if odd := next((row for row in rows if not isinstance(row, dict)), None):
        raise UserError(f"A line of {where} is {odd!r:.40}, not a group of entries; correct it.")
    return [row for row in rows if isinstance(row, dict)]


def _texts(rows: Iterable[_Row], label: str, where: str) -> dict[str, str]:
    """Return the text of each image's label by its path. Raises UserError on labels that are none."""
    texts: dict[str, str] = {}
    for row in rows:
        path, value = row.get(_FILE), row.get(label)
        if not isinstance(path, str) or not isinstance(value, str | int) or value == "":
            raise UserError(
                f"A row of {where} has the {_FILE} {path!r:.60} and the {label} {value!r:.40}; give each "
                "image a text or an integer."
            )
        path, text = os.path.normpath(path.replace("\\", "/")), class_name(str(value).strip())
        if texts.setdefault(path, text) != text:
            raise UserError(f"{where} has two labels for {printable(path)}; keep one of them.")
    return texts


def _annotated(paths: Sequence[str], folder: Folder, file: str, texts: Mapping[str, str]) -> Annotated:
    start = len(folder.path) + 1 if folder.path else 0
    known = [path[start:] for path in paths]
    if lacking := next((path for path in known if path not in texts), None):
        raise UserError(f"{folder}/{file} has no label for {printable(lacking)}; add it, or remove the file.")
    names = in_class_order({texts[path] for path in known})
    number = {name: place for place, name in enumerate(names)}
    unused = len(texts.keys() - set(known))
    left = (LeftOut(unused, f"labels in {file}", "their images are not read"),) if unused else ()
    return Annotated([number[texts[path]] for path in known], names, left, file)
