"""A folder of editing results with a record of their origins, so that a repeated edit resumes.

No file that is not a result of an edit is replaced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cm_ray.drawing.pictures import save_grid, to_nhwc
from cm_ray.errors import UserError, setting
from cm_ray.storage.files import MOST_RECORD, read_json, write_json, written_aside

RECORD, GRID = "edits.json", "grid.png"
_OUT = setting("out")


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a result."""

    of: str
    """Name of the input. A new edit of the same input removes results that it does not replace."""
    made_by: str
    """Digest of everything that the result depends on."""


def _origin(record: list[str], file: Path) -> Origin:
    if len(record) != 2:
        raise UserError(f"{file} is not as cm_ray writes it ({record[:3]}); restore it or remove it.")
    return Origin(*record)


class ResultFolder:
    """A folder with the results of an edit, by name."""

    def __init__(self, folder: Path, planned: Mapping[str, Origin]) -> None:
        self.folder, self.planned = folder, {**planned, GRID: Origin(GRID, "")}
        self.record = folder / RECORD

    def begin(self, inputs: Collection[Path], root: Path | None = None) -> None:
        """Remove outdated results, and write the record of the new ones before the first is saved.

        inputs: the files that are read. root: the folder of images in which they were found. Raises UserError
        when a result would replace an input or a file that is not a result of an edit, or when it would be an
        input of the next edit of `root`.
        """
        found = read_json(self.record, {str: [str]}, MOST_RECORD) if self.record.is_file() else {}
        known = {
            name: _origin(origin, self.record) for name, origin in found.items() if self._is_inside(name)
        }
        again = {origin.of for origin in self.planned.values()}
        stale = {name for name, origin in known.items() if origin.of in again} - {*self.planned}
        self._check({*self.planned, *stale}, known, {path.resolve() for path in inputs}, root)
        for name in stale:
            (self.folder / name).unlink(missing_ok=True)
            del known[name]
        for name, origin in self.planned.items():
            if name in known and known[name] != origin:
                (self.folder / name).unlink(missing_ok=True)
        record = {**known, **self.planned}
        write_json(self.record, {name: [origin.of, origin.made_by] for name, origin in record.items()})

    def has(self, names: Collection[str]) -> bool:
        """Return True if results of the same edit exist. Call it after `begin`."""
        return all((self.folder / name).is_file() for name in names)

    def save(self, name: str, image: Tensor) -> None:
        """Save an image, uint8 (c, h, w), as PNG."""
        (pixels,) = to_nhwc(image[None])
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        with written_aside(self.folder / name) as aside:
            picture.save(aside, format="PNG")

    def load(self, name: str) -> Tensor:
        """Return a saved image, uint8 (c, h, w)."""
        with Image.open(self.folder / name) as picture:
            pixels = torch.from_numpy(np.array(picture))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)

    def save_grid(self, rows: Tensor) -> Path:
        """Save grid.png with images, uint8 (rows, columns, c, h, w); return its path."""
        save_grid(rows.flatten(0, 1), self.folder / GRID, columns=rows.shape[1])
        return self.folder / GRID

    def _check(self, names: set[str], known: Collection[str], inputs: set[Path], root: Path | None) -> None:
        for name in sorted(names):
            path, resolved = self.folder / name, (self.folder / name).resolve()
            if resolved in inputs:
                raise UserError(f"{path} is an input and would be replaced; give another {_OUT}.")
            if root is not None and resolved.is_relative_to(root.resolve()):
                raise UserError(
                    f"{path} would be among the images of {root}, and the next run would edit it; give "
                    f"{_OUT} outside of that folder."
                )
            if path.exists() and name not in known:
                raise UserError(f"{path} exists and is not a result of an edit; give another {_OUT}.")

    def _is_inside(self, name: str) -> bool:
        return (self.folder / name).resolve().is_relative_to(self.folder.resolve())
