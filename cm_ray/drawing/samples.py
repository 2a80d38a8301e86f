"""Samples as an array that shows itself, saves itself and becomes PIL images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cm_ray.drawing.pictures import grid_picture, save_arrays
from cm_ray.errors import UserError


class Samples(np.ndarray):
    """uint8 images (n, h, w, c), or a part of them; c is 1 or 3.

    Shows itself as a grid in a notebook. labels: class of each image (n,), if the model takes any. They
    follow a choice of images, a copy and a pickle; what is computed from samples has none.
    """

    labels: np.ndarray | None
    class_names: tuple[str, ...]

    def __new__(
        cls, images: Tensor, labels: Tensor | None = None, class_names: tuple[str, ...] = ()
    ) -> Samples:
        """Make samples of uint8 images (n, c, h, w)."""
        array = np.ascontiguousarray(images.cpu().numpy().transpose(0, 2, 3, 1)).view(cls)
        array.labels = None if labels is None else labels.cpu().numpy()
        array.class_names = class_names
        return array

    def __array_finalize__(self, parent: Any) -> None:
        """Keep the names of the classes; labels only where it is known which image each belongs to."""
        self.labels = None
        self.class_names = getattr(parent, "class_names", ())

    def __getitem__(self, index: Any) -> Any:
        """Return a part of the samples; the labels follow the choice of images."""
        part = super().__getitem__(index)
        if isinstance(part, Samples) and self.labels is not None:
            first = index[0] if isinstance(index, tuple) and index else index
            of_images = isinstance(first, slice | list) or (isinstance(first, np.ndarray) and first.ndim == 1)
            if of_images and (not isinstance(index, tuple) or len(index) == 1):
                part.labels = self.labels[first]
        return part

    def copy(self, order: Any = "C") -> Samples:
        """Return a copy with its labels."""
        new: Samples = super().copy(order)
        new.labels = None if self.labels is None else self.labels.copy()
        return new

    def __copy__(self) -> Samples:
        """Return a copy with its labels."""
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Samples:
        """Return a copy with its labels."""
        return self.copy()

    def __reduce__(self) -> Any:
        """Pickle the array with its labels and the names of the classes."""
        parts: Any = super().__reduce__()
        make, arguments, state = parts
        return make, arguments, (state, self.labels, self.class_names)

    def __setstate__(self, state: Any) -> None:
        """Restore the array, its labels and the names of the classes."""
        array, self.labels, self.class_names = state
        super().__setstate__(array)

    def pil(self) -> list[Image.Image]:
        """Return the images as PIL images."""
        return [Image.fromarray(each[:, :, 0] if each.shape[-1] == 1 else each) for each in self._images()]

    def tensor(self) -> Tensor:
        """Return the images as a uint8 tensor (n, c, h, w)."""
        return torch.from_numpy(np.ascontiguousarray(self._images().transpose(0, 3, 1, 2)))

    def grid(self, columns: int = 0) -> Image.Image:
        """Return all images in a picture; columns: 0 makes it square."""
        return grid_picture(self.tensor(), columns=columns)

    def save(self, path: str | Path) -> Path:
        """Write a grid to .png, .jpg or .webp, or images, labels and names of classes to .npz.

        Raises UserError on another ending.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".npz":
            labels = None if self.labels is None else torch.from_numpy(self.labels)
            save_arrays(self.tensor(), file, labels, self.class_names)
        elif file.suffix in (".png", ".jpg", ".jpeg", ".webp"):
            self.grid().save(file)
        else:
            raise UserError(f"{file} must end in .png, .jpg, .webp or .npz.")
        return file

    def _images(self) -> np.ndarray:
        """Return the samples as a plain array (n, h, w, c). Raises UserError when they are no images."""
        array = np.asarray(self)
        if array.ndim == 3:
            array = array[None]
        if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.dtype != np.uint8:
            raise UserError(f"An array of {array.dtype} {self.shape} is no image: take whole samples.")
        if not array.size:
            raise UserError(f"There are no pixels in samples of the shape {self.shape}: take one at least.")
        return array

    def _repr_png_(self) -> bytes | None:
        """Return the grid as a notebook shows it; none of what is no image."""
        image = self.ndim in (3, 4) and self.shape[-1] in (1, 3) and self.dtype == np.uint8
        if not image or not self.size:
            return None
        buffer = io.BytesIO()
        self.grid().save(buffer, format="PNG")
        return buffer.getvalue()
