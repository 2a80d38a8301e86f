"""Editing of image files in units of some files; the results do not depend on the number of processes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.core.types import Images
from cm_ray.data.pictures.uploads import fitted_mask, fitted_pixels, open_mask, open_upload, read_file
from cm_ray.drawing.requests import batch_in_memory
from cm_ray.editing.model_edits import edited, shown_before
from cm_ray.editing.tasks import Edit
from cm_ray.networks.model import Model, ModelSpec, from_uint8, to_uint8

_MOST_PIXELS = 1 << 24
"""The largest number of pixel values in the results of a unit: 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """An edit, its files and its options."""

    edit: Edit
    files: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    """The mask of each file, for inpaint."""
    samples: int = 1
    """Number of results for each file; sample k has the seed `seed` + k."""
    seed: int = 0
    labels: tuple[int, ...] = ()
    """Class of each file; if empty, classes are drawn with the seed of each sample."""
    resize: bool = False
    """Crop and resize images of other sizes; otherwise they are an error."""
    add_noise: bool = False
    """Add noise of the given level to the images first, for denoise."""
    batch: int = 256
    """Images per network evaluation."""

    def units(self, spec: ModelSpec) -> list[tuple[int, int]]:
        """Return (first file, count) of every unit: a batch, or less when the results are large."""
        c, h, w = spec.shape
        size = max(1, min(self.batch, _MOST_PIXELS // (c * h * w * self.samples)))
        return [(i, min(size, len(self.files) - i)) for i in range(0, len(self.files), size)]


class Inputs(NamedTuple):
    """Images and masks as inputs of a model."""

    given: Images
    """Images of the files (b, c, h, w), in [-1, 1]."""
    noisy: Images
    """The images after noise was added (b, c, h, w); equal to `given` without added noise."""
    mask: Tensor | None
    """Masks (b, 1, h, w), True where the image is kept; None without masks."""


def read_inputs(request: EditRequest, spec: ModelSpec, first: int, count: int) -> Inputs:
    """Read `count` files from file `first` on.

    Raises UserError on a file that is not an image, or whose size does not fit.
    """
    images, masks = [], []
    for index in range(first, first + count):
        name = str(request.files[index])
        picture = open_upload(read_file(request.files[index]), name, spec.reading)
        factor = request.edit.factor
        pixels = fitted_pixels(picture, name, spec.shape, resize=request.resize, factor=factor)
        images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        if request.masks:
            mask = open_mask(read_file(request.masks[index]), str(request.masks[index]))
            masks.append(torch.from_numpy(fitted_mask(mask, str(request.masks[index]), picture, spec.shape)))
    given = noisy = from_uint8(torch.stack(images))
    if request.add_noise:
        indices = torch.arange(first, first + count)
        noise = normal(request.seed, 0, indices, Purpose.NOISE, spec.shape)
        noisy = given + request.edit.times[-1] * noise
    return Inputs(given, noisy, torch.stack(masks)[:, None] if masks else None)


def content_digests(request: EditRequest, spec: ModelSpec) -> list[str]:
    """Return a digest of the model's input for each file. Raises UserError as `read_inputs` does."""
    digests = []
    for index in range(len(request.files)):
        inputs = read_inputs(request, spec, index, 1)
        digest = hashlib.sha256(inputs.noisy.numpy().tobytes())
        digest.update(b"" if inputs.mask is None else inputs.mask.numpy().tobytes())
        digests.append(digest.hexdigest())
    return digests


def edit_unit(model: Model, request: EditRequest, first: int, count: int) -> Tensor:
    """Return the results of `count` files from file `first` on, uint8 (count, samples, c, h, w), on the CPU.

    Raises UserError as `read_inputs` does.
    """
    device = next(model.parameters()).device
    inputs = read_inputs(request, model.spec, first, count)
    images = inputs.noisy.to(device)
    mask = None if inputs.mask is None else inputs.mask.to(device)
    indices = torch.arange(first, first + count, device=device)
    given = request.labels[first : first + count]
    labels = torch.tensor(given, device=device) if given else None
    with batch_in_memory(f"Edits in batches of {count:,}"):
        results = [
            edited(model, request.edit, images, indices=indices, seed=seed, mask=mask, labels=labels)
            for seed in range(request.seed, request.seed + request.samples)
        ]
        return torch.stack([to_uint8(result).cpu() for result in results], 1)


def compared(request: EditRequest, inputs: Inputs, results: Tensor) -> Tensor:
    """Return rows of images for comparison, uint8 (b, k, c, h, w).

    Each row has the known part of the image, the results, and the given image if it differs from the
    known part.
    """
    before = to_uint8(shown_before(request.edit, inputs.noisy, inputs.mask))
    given = to_uint8(inputs.given)
    columns = [before[:, None], results]
    if not torch.equal(before, given):
        columns.append(given[:, None])
    return torch.cat(columns, 1)
