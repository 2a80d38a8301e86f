"""Classes that are named by folders: their order and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from cm_ray.data.interface.columns import LABEL_WORDS
from cm_ray.data.interface.names import class_name, in_class_order, printable
from cm_ray.data.layouts.file_groups import Group
from cm_ray.data.layouts.file_tree import Folder
from cm_ray.data.layouts.synsets import are_synsets, synset_names
from cm_ray.errors import UserError

_NO_CLASSES = ("images", "image", "imgs", "img", "jpegimages")
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class FolderClasses:
    """Folders of classes, in the order of the classes."""

    folders: tuple[str, ...]
    names: tuple[str, ...]
    layout: str


def folder_classes(groups: Mapping[str, Group], around: Sequence[Folder]) -> FolderClasses:
    """Return the classes that sub-folders are, in order.

    around: folders in which a file with names of synsets may lie. Raises UserError when two folders have the
    same name.
    """
    values = hive_values(groups)
    layout = f"image files in folders {next(iter(groups)).partition('=')[0]}=…" if values else ""
    named = {class_name(values.get(folder, folder)): folder for folder in groups}
    odd = next((folder for folder in groups if folder.lower() in _NO_CLASSES), None)
    if odd and len(groups) > 1:
        other = next(folder for folder in groups if folder != odd)
        raise UserError(
            f"The folders {printable(odd)!r} and {printable(other)!r} lie side by side, and are hardly "
            "classes; give the path of the one with the images."
        )
    if len(named) < len(groups):
        twice = next(folder for folder in groups if folder not in named.values())
        raise UserError(f"Two class folders have the name {printable(twice)!r}; rename one of them.")
    names = in_class_order(named)
    folders = tuple(named[name] for name in names)
    if are_synsets(names):
        names = synset_names(names, around)
    if not layout:
        deep = any(group.nested for group in groups.values())
        layout = "image files in class folders" + (", which hold other folders" if deep else "")
    return FolderClasses(folders, tuple(names), layout)


def hive_values(folders: Mapping[str, object], given: str = "") -> dict[str, str]:
    """Return the values of folders that are all called `label=value`, as Hive and Spark call them.

    given: a key that gives the classes, too, whatever it is called. Returns {} if a folder has another name,
    or their keys differ. Raises UserError when one is for rows without a label.
    """
    pairs = {folder: folder.partition("=") for folder in folders}
    keys = {key.lower() for key, _, _ in pairs.values()}
    if (
        len(keys) != 1
        or not keys <= {*LABEL_WORDS, given.lower()}
        or not all(equals for _, equals, _ in pairs.values())
    ):
        return {}
    null = next((folder for folder, (_, _, value) in pairs.items() if value in (_NULL, "")), None)
    if null:
        raise UserError(f"The folder {printable(null)!r} is of images without a label; label or remove them.")
    return {folder: unquote(value) for folder, (_, _, value) in pairs.items()}
