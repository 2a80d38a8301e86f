"""Images in any form, as a user gives them, as pixels of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cm_ray.data.interface.reading import Reading
from cm_ray.data.pictures import uploads
from cm_ray.editing.tasks import Task
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec

Pictures = Any
"""Images to edit: a PIL image, the path of a file, a uint8 array (h, w, c), (h, w) or (n, h, w, c), a uint8
tensor (c, h, w) or (n, c, h, w), `Samples`, or a list of single ones."""


def pixels_of(
    images: Pictures, spec: ModelSpec, *, factor: int = 0, resize: bool = True
) -> tuple[list[Image.Image], Tensor]:
    """Return images in any form as pictures, and as uint8 (n, c, h, w) of the model's shape.

    factor: pixels of images that are smaller by it become patches, which are what an upscaling keeps. resize:
    crop and resize images of other sizes, which are refused otherwise.
    """
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        images = list(images)
    listed = images if isinstance(images, list | tuple) else [images]
    if not listed:
        raise UserError("There are no images: give at least one.")
    pictures = [_picture(each, f"image {number}", spec.reading) for number, each in enumerate(listed)]
    pixels = [
        uploads.fitted_pixels(each, f"image {number}", spec.shape, resize=resize, factor=factor)
        for number, each in enumerate(pictures)
    ]
    return pictures, torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy())


def mask_of(mask: Any, task: Task, pictures: list[Image.Image], spec: ModelSpec) -> Tensor | None:
    """Return the mask of inpainting (n, 1, h, w); none in other tasks."""
    if task != "inpaint":
        if mask is not None:
            raise UserError(f"A mask goes with inpaint, not with {task}: leave it out.")
        return None
    if mask is None:
        raise UserError("inpaint needs a mask (h, w), true where the image is kept.")
    if not isinstance(mask, Image.Image | str | Path):
        array = np.asarray(mask)
        if array.ndim != 2:
            raise UserError(f"The mask must be (h, w), one for all images, not {array.shape}.")
        mask = Image.fromarray((array != 0).astype(np.uint8) * 255)
    if isinstance(mask, str | Path):
        picture = uploads.open_mask(uploads.read_file(Path(mask)), str(mask))
    else:
        picture = _picture(mask, "the mask", Reading(background="black"))
    fitted = [uploads.fitted_mask(picture, "The mask", each, spec.shape) for each in pictures]
    return torch.from_numpy(np.stack(fitted)[:, None])


def _picture(image: Any, name: str, reading: Reading) -> Image.Image:
    """Return an image in any form as a picture of mode L or RGB, read as those of the training."""
    if isinstance(image, Image.Image):
        return uploads.open_picture(image, name, reading)
    if isinstance(image, str | Path):
        return uploads.open_upload(uploads.read_file(Path(image)), str(image), reading)
    if isinstance(image, Tensor):
        image = image.cpu().movedim(0, -1) if image.ndim == 3 else image.cpu()
    array = np.asarray(image)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3):
        raise UserError(
            f"{name} must be uint8 (h, w) or (h, w, c) with 1 or 3 channels, not {array.dtype} {array.shape}."
        )
    return Image.fromarray(array.reshape(array.shape[:2]) if channels == 1 else array)
