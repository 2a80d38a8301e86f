"""Labels in the dataset.json of EDM's and StyleGAN's data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cm_ray.data.interface.names import printable
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.errors import UserError

LABELS_FILE = "dataset.json"
_MOST_BYTES = 1 << 30
_NUMBERS = "write an integer, the number of the class, for each image"


@dataclass(frozen=True, slots=True)
class ListedLabels:
    """The labels that a dataset.json lists."""

    place: str
    """The file in messages."""
    labels: Mapping[str, int] | None
    """Label of each file, by its path relative to the folder of the dataset.json; None for `null`."""

    def of(self, path: str) -> int:
        """Return the label of a file, -1 if there are no labels. Raises UserError when the file has none."""
        if self.labels is None:
            return -1
        if path not in self.labels:
            raise UserError(
                f"{self.place} has no label for {printable(path)}; add it, or set labels to null there."
            )
        return self.labels[path]


def read_labels(folder: Folder) -> ListedLabels | None:
    """Read the dataset.json of a folder; None if there is none, or one without an entry "labels".

    Raises UserError when the entry is neither null nor a list of [file, class] with integers.
    """
    if LABELS_FILE not in folder.entries.files:
        return None
    place = f"{folder.place}/{LABELS_FILE}"
    data = folder.read(LABELS_FILE, _MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UserError(f"{place} has more than {_MOST_BYTES >> 30} GiB; give the folder without it.")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not valid JSON ({error}); restore it or remove it.") from error
    if not isinstance(content, dict) or "labels" not in content:
        return None
    return ListedLabels(place, _checked(content["labels"], place))


def _checked(listed: Any, place: str) -> Mapping[str, int] | None:
    """Return the label of each file. Raises UserError on anything else."""
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise UserError(f"The labels of {place} are no list; write [file, class] for each image, or null.")
    labels: dict[str, int] = {}
    for entry in listed:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise UserError(f"A label of {place} is not of the form [file, class]; correct it.")
        file, label = entry[0].replace("\\", "/"), entry[1]
        if isinstance(label, list | float):
            kind = "a vector, such as a one-hot vector" if isinstance(label, list) else "a fraction"
            raise UserError(f"The label of {printable(file)} in {place} is {kind}; {_NUMBERS}.")
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < 1 << 31:
            raise UserError(f"The label of {printable(file)} in {place} is {label!r:.40}; {_NUMBERS}.")
        if labels.setdefault(file, label) != label:
            raise UserError(f"{place} has two labels for {printable(file)}; keep one of them.")
    return labels
