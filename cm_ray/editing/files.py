"""Image files edited, in units of some files: the same results from one process or from many."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.core.types import Images
from cm_ray.data.uploads import fitted_mask, fitted_pixels, open_mask, open_upload, read_file
from cm_ray.editing.model_edits import edited, shown_before
from cm_ray.editing.tasks import Edit
from cm_ray.networks.model import Model, ModelSpec, from_uint8, to_uint8

_MOST_PIXELS = 1 << 24
"""Limit on the pixels of the results of a unit of work: some tens of megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """An edit, and the files that it is done to."""

    edit: Edit
    files: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    """Masks of inpaint, one for each file."""
    samples: int = 1
    """Results of every file: sample k is made with seed + k."""
    seed: int = 0
    labels: tuple[int, ...] = ()
    """A class for each file; none draws them with the seed of every sample."""
    resize: bool = False
    """Crop and resize images of other sizes."""
    add_noise: bool = False
    """In denoise, add noise of the level to the files first."""
    batch: int = 256
    """Images per network evaluation."""

    def units(self, spec: ModelSpec) -> list[tuple[int, int]]:
        """Return (first file, count) of every unit of work: a batch, or fewer where results are large."""
        c, h, w = spec.shape
        size = max(1, min(self.batch, _MOST_PIXELS // (c * h * w * self.samples)))
        return [(i, min(size, len(self.files) - i)) for i in range(0, len(self.files), size)]


class Inputs(NamedTuple):
    """Files as a model takes them."""

    given: Images
    """The images of the files (b, c, h, w), in [-1, 1]."""
    noisy: Images
    """The same but for noise that was added."""
    mask: Tensor | None
    """(b, 1, h, w), true where the image is kept."""


def read_inputs(request: EditRequest, spec: ModelSpec, first: int, count: int) -> Inputs:
    """Read files `first` to first + count. Raises UserError on one that is no image or does not fit."""
    images, masks = [], []
    for place in range(first, first + count):
        name = str(request.files[place])
        picture = open_upload(read_file(request.files[place]), name)
        factor = request.edit.factor
        pixels = fitted_pixels(picture, name, spec.shape, resize=request.resize, factor=factor)
        images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        if request.masks:
            mask = open_mask(read_file(request.masks[place]), str(request.masks[place]))
            masks.append(torch.from_numpy(fitted_mask(mask, str(request.masks[place]), picture, spec.shape)))
    given = noisy = from_uint8(torch.stack(images))
    if request.add_noise:
        indices = torch.arange(first, first + count)
        noise = normal(request.seed, 0, indices, Purpose.NOISE, spec.shape)
        noisy = given + request.edit.times[-1] * noise
    return Inputs(given, noisy, torch.stack(masks)[:, None] if masks else None)


def content_digests(request: EditRequest, spec: ModelSpec) -> list[str]:
    """Read all files; return a digest of each as the model takes it. Raises UserError as `read_inputs`."""
    digests = []
    for place in range(len(request.files)):
        inputs = read_inputs(request, spec, place, 1)
        digest = hashlib.sha256(inputs.noisy.numpy().tobytes())
        digest.update(b"" if inputs.mask is None else inputs.mask.numpy().tobytes())
        digests.append(digest.hexdigest())
    return digests


def edit_unit(model: Model, request: EditRequest, first: int, count: int) -> Tensor:
    """Return the results of some files, uint8 (count, samples, c, h, w), on the CPU.

    Raises UserError as `read_inputs`.
    """
    device = next(model.parameters()).device
    inputs = read_inputs(request, model.spec, first, count)
    images = inputs.noisy.to(device)
    mask = None if inputs.mask is None else inputs.mask.to(device)
    indices = torch.arange(first, first + count, device=device)
    given = request.labels[first : first + count]
    labels = torch.tensor(given, device=device) if given else None
    made = [
        edited(model, request.edit, images, indices=indices, seed=request.seed + k, mask=mask, labels=labels)
        for k in range(request.samples)
    ]
    return torch.stack([to_uint8(one).cpu() for one in made], 1)


def compared(request: EditRequest, inputs: Inputs, results: Tensor) -> Tensor:
    """Return rows of before, results and, where it is another one, the image given: uint8 (b, k, c, h, w)."""
    before = to_uint8(shown_before(request.edit, inputs.noisy, inputs.mask))
    given = to_uint8(inputs.given)
    columns = [before[:, None], results]
    if not torch.equal(before, given):
        columns.append(given[:, None])
    return torch.cat(columns, 1)
