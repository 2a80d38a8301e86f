"""Columns of images and of labels in tables, found by their names and kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cm_ray.errors import UserError, closest

NO_LABELS = "none"
Kind = Literal["images", "paths", "other"]
"""Content of a column: image files or arrays, paths of image files, or anything else."""
LABEL_WORDS = (
    "label", "labels", "label_id", "label_name", "class", "classes", "class_id", "class_idx", "class_index",
    "class_label", "class_name", "category", "category_id", "category_name", "target", "targets", "cls", "y",
    "fine_label", "fine_labels", "coarse_label", "coarse_labels",
)  # fmt: skip
_IMAGE_WORDS = ("image", "img", "images", "picture", "photo", "pixels", "jpg", "jpeg", "png", "webp", "x")
_PATH_WORDS = ("file_name", "filename", "file_path", "filepath", "file", "image_path", "image_file", "path")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that a user wants to be read; "" stands for the one that names and kinds tell."""

    image: str = ""
    label: str = ""
    """ "none" reads no labels."""

    def __bool__(self) -> bool:
        """Return True if a column is named."""
        return bool(self.image or self.label)


DEFAULT = Columns()


@dataclass(frozen=True, slots=True)
class ColumnChoice:
    """The choice of the columns of a table, and the sentences where it is not clear."""

    where: str
    """Name of the table in messages."""
    noun: str = "column"
    """Word for a column in messages."""
    advice: str = ""
    """Advice for a data set whose columns no setting can choose."""

    def images(self, kinds: Mapping[str, Kind], wanted: str = "") -> str:
        """Return the name of the column of images.

        kinds: the kind of each column by its name. wanted: the user's choice. Without it, it is the column
        `image` or `img`, the only column of images, the only one with a name such as `photo`, or the only
        column of paths with a name such as `file_name`. Raises UserError when there is none, or when there
        are several.
        """
        if wanted:
            return self.known([*kinds], wanted, "image")
        images = [name for name, kind in kinds.items() if kind == "images"]
        for words in (_IMAGE_WORDS[:1], _IMAGE_WORDS[1:2]):
            if named := _named(images, words):
                return named[0]
        paths = [name for name, kind in kinds.items() if kind == "paths"]
        paths = _named(paths, _IMAGE_WORDS + _PATH_WORDS)
        for found in (images, _named(images, _IMAGE_WORDS), paths):
            if len(found) == 1:
                return found[0]
        if several := images or paths:
            raise self._unclear("image", several)
        shown = ", ".join(kinds) or "none"
        raise UserError(
            f"{self.where} has no {self.noun} of images (its {self.noun}s: {shown}); "
            f"{self._advice('image')}, or rename it image."
        )

    def labels(self, names: Sequence[str], wanted: str = "") -> str | None:
        """Return the name of the column of labels, None if there is none.

        names: of all columns. wanted: the user's choice. Without it, it is the column `label`, else the only
        one with a name such as `class` or `target`, and `fine_label` beside `coarse_label`. Raises UserError
        when there are several others.
        """
        if wanted:
            return None if wanted == NO_LABELS else self.known(names, wanted, "label")
        found = _named(names, LABEL_WORDS)
        if exact := _named(names, LABEL_WORDS[:1]):
            return exact[0]
        fine = [name for name in found if name.lower().startswith("fine_")]
        if len(fine) == 1 and all(name.lower().startswith(("fine_", "coarse_")) for name in found):
            return fine[0]
        if len(found) > 1:
            raise self._unclear("label", found)
        return found[0] if found else None

    def known(self, names: Sequence[str], wanted: str, what: str) -> str:
        """Return the user's choice. Raises UserError when there is no such column.

        what: "image" or "label".
        """
        if wanted not in names:
            hint = closest(wanted, list(names))
            raise UserError(
                f"{self.where} has no {self.noun} {wanted!r}, which data.{what}_column names; {hint}"
            )
        return wanted

    def _unclear(self, what: str, names: Sequence[str]) -> UserError:
        shown = ", ".join(names)
        return UserError(f"{self.where} has several {self.noun}s of {what}s ({shown}); {self._advice(what)}.")

    def _advice(self, what: str) -> str:
        return self.advice or f"name one by data.{what}_column, or by --{what}-column of cm-ray shards"


def _named(names: Sequence[str], words: Sequence[str]) -> list[str]:
    return [name for name in names if name.lower() in words]
