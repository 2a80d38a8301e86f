"""Results of editing in a folder that remembers what made them: a repeat goes on, and harms nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.sampling.pictures import save_grid, to_nhwc
from cm_ray.storage.files import read_json, write_json, written_aside

RECORD, GRID = "edits.json", "grid.png"


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a result."""

    of: str
    """Results of one thing that a new edit of it does not make again are stale."""
    made_by: str
    """A digest of all that the result depends on."""


class ResultFolder:
    """A folder for the results of an edit, by their names in it."""

    def __init__(self, folder: Path, planned: Mapping[str, Origin]) -> None:
        self.folder, self.planned = folder, {**planned, GRID: Origin(GRID, "")}
        self.record = folder / RECORD

    def begin(self, inputs: Collection[Path], root: Path | None = None) -> None:
        """Remove what the new results replace, and note them down before the first is written.

        inputs: files that are read. root: the folder of images that they were found in. Raises UserError
        when a result would replace an input or a file that no edit has made, or would itself be an image of
        the next edit of `root`.
        """
        found = read_json(self.record) if self.record.is_file() else {}
        known = {name: Origin(*origin) for name, origin in found.items() if self._is_inside(name)}
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
        """Return whether results are there, made by an earlier run of the same edit; once it has begun."""
        return all((self.folder / name).is_file() for name in names)

    def save(self, name: str, image: Tensor) -> None:
        """Write an image, uint8 (c, h, w)."""
        (pixels,) = to_nhwc(image[None])
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        with written_aside(self.folder / name) as aside:
            picture.save(aside, format="PNG")

    def load(self, name: str) -> Tensor:
        """Read an image that was saved, uint8 (c, h, w)."""
        with Image.open(self.folder / name) as picture:
            pixels = torch.from_numpy(np.array(picture))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)

    def save_grid(self, rows: Tensor) -> Path:
        """Write grid.png of images, uint8 (rows, columns, c, h, w)."""
        save_grid(rows.flatten(0, 1), self.folder / GRID, columns=rows.shape[1])
        return self.folder / GRID

    def _check(self, names: set[str], known: Collection[str], inputs: set[Path], root: Path | None) -> None:
        for name in sorted(names):
            path, place = self.folder / name, (self.folder / name).resolve()
            if place in inputs:
                raise UserError(f"{path} is to be edited and would be replaced: give another --out.")
            if root is not None and place.is_relative_to(root.resolve()):
                raise UserError(
                    f"{path} would lie among the images of {root}, and be edited by the next run: "
                    "give an --out elsewhere."
                )
            if path.exists() and name not in known:
                raise UserError(f"{path} is there, and no edit has made it: give another --out.")

    def _is_inside(self, name: str) -> bool:
        return (self.folder / name).resolve().is_relative_to(self.folder.resolve())
