"""Sources by name or path: a named data set, a folder of image files, Parquet files, or an .npz file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cm_ray.data.cifar10 import Cifar10Source
from cm_ray.data.digits import DigitsSource
from cm_ray.data.folder import FolderSource
from cm_ray.data.npz import NpzSource
from cm_ray.data.parquet import ParquetSource
from cm_ray.data.source import Source
from cm_ray.errors import UserError, closest

NAMED = ("cifar10", "digits")
_WANTED = "a folder of images, a Parquet file or a folder of them, or an .npz file"
_SPLIT_FOLDERS = frozenset({"train", "test", "val", "valid", "validation", "dev"})
_HUB_FILE = re.compile(r"(.+)-\d{5}-of-\d{5}\.parquet")


def open_source(
    path_or_name: str, split: str = "train", progress: Callable[[int, int], None] | None = None
) -> Source:
    """Open a data set by its name (digits, cifar10), or images at a path.

    A path is a Parquet file, an .npz file, a folder of Parquet files, a folder of image files, a folder of
    one sub-folder of image files per class, or a folder that holds one of these for each split (train,
    test, …). A name comes before a folder of the same name: write ./digits for the folder. `progress` is
    called with bytes done and bytes in all if `parts` has to download something. Raises UserError when there
    are no such images.
    """
    if path_or_name == "cifar10":
        return Cifar10Source(split, progress)
    if path_or_name == "digits":
        return DigitsSource(split)
    path = Path(path_or_name).expanduser()
    if not path_or_name or not path.exists():
        raise _missing(path_or_name)
    if path.is_file():
        return _open_file(path)
    if (path / "manifest.json").is_file():
        raise UserError(f"{path} holds shards already; use it as it is, without making shards of it.")
    return _open_folder(path, split)


def _open_file(path: Path) -> Source:
    if path.suffix == ".parquet":
        return ParquetSource.open([path], path.stem)
    if path.suffix == ".npz":
        return NpzSource.open(path, path.stem)
    raise UserError(f"{path} is a file; give {_WANTED}.")


def _missing(path_or_name: str) -> UserError:
    hint = closest(path_or_name, list(NAMED))
    give = f"give the path of {_WANTED}."
    if Path(path_or_name).name != path_or_name:
        return UserError(f"There is no {path_or_name}; {give}")
    return UserError(
        f"There is no data set and no path {path_or_name!r}; {hint.rstrip('.')}"
        + ("" if hint.endswith("?") else f", or {give}")
    )


def _open_folder(path: Path, split: str) -> Source:
    folder = _split_folder(path, split)
    base = path.resolve().name
    name = base if folder == path else f"{base}-{split}"
    for place in (folder, folder / "data"):  # the Hugging Face hub keeps the files of a data set in data/
        files = sorted(place.glob("[!.]*.parquet"))
        if files:
            return ParquetSource.open(_of_split(files, split), name)
    return FolderSource.open(folder, name)


def _split_folder(path: Path, split: str) -> Path:
    """Return the sub-folder of `split` if the sub-folders of `path` are splits, else `path`.

    "train" may also be the name of a class, hence all names must be those of splits.
    """
    names = {sub.name for sub in path.iterdir() if sub.is_dir() and not sub.name.startswith(".")}
    if not names or not names <= _SPLIT_FOLDERS:
        return path
    if split not in names:
        raise UserError(f"{path} has no split {split!r}; {closest(split, sorted(names))}")
    return path / split


def _of_split(files: list[Path], split: str) -> list[Path]:
    """Return the files of a split, as the hub names them: SPLIT-00000-of-00005.parquet.

    Files of other names belong to every split.
    """
    splits = [match[1] if (match := _HUB_FILE.fullmatch(file.name)) else None for file in files]
    if None in splits or (split == "train" and len(set(splits)) == 1):  # the default takes the only one
        return files
    chosen = [file for file, of in zip(files, splits, strict=True) if of == split]
    if not chosen:
        known = sorted({str(of) for of in splits})
        raise UserError(f"{files[0].parent} has no split {split!r}; {closest(split, known)}")
    return chosen
