"""Requests as settings: JSON is checked, and becomes pieces that replicas make."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from cm_ray.cluster.serving.pieces import Piece
from cm_ray.data.pictures.uploads import fitted_mask, fitted_pixels, open_mask, open_upload
from cm_ray.drawing.model_labels import class_number, label_draw
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.editing.tasks import Edit, plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from cm_ray.sampling.samplers import Sampler
from cm_ray.settings.tree import from_dict
from cm_ray.storage.files import parse_json

A = TypeVar("A")

Format = Literal["png", "npz"]
_MOST_INDEX = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest request that is answered."""

    samples: int
    """Images of a request."""
    steps: int
    """Network evaluations of an image."""
    mib: int
    """MiB of a request's body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleAsked:
    """Samples that are asked for; see `cm_ray.api.trained_model.TrainedModel.sample`."""

    samples: int = 1
    seed: int = 0
    first: int = 0
    """Index of the first sample."""
    label: str = ""
    """Name of a class, or several with commas; empty: all classes, equally often."""
    steps: int = 0
    taus: tuple[float, ...] = ()
    sampler: str = ""
    format: Format = "png"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditAsked:
    """Edits that are asked for; see `cm_ray.api.trained_model.TrainedModel.edit`."""

    task: str = ""
    images: tuple[str, ...] = ()
    """Image files in base64; image i has noise i."""
    masks: tuple[str, ...] = ()
    """Files in base64 for inpaint, one for all images or one for each, white where the image is kept."""
    seed: int = 0
    label: str = ""
    """Name of the class of all images; empty: drawn with the seed."""
    steps: int = 0
    taus: tuple[float, ...] = ()
    factor: int = 0
    sigma: float = 0.0
    resize: bool = False
    """Crop and resize images of other sizes, which are refused otherwise."""
    format: Format = "png"


def read_asked(kind: type[A], body: bytes) -> A:
    """Return what a body in JSON asks for. Raises UserError on unknown names and values of other types."""
    return from_dict(kind, parsed(body))


def parsed(body: bytes) -> dict[str, Any]:
    """Return the object of JSON in a body. Raises BadJson when there is none."""
    try:
        values = parse_json(body or b"{}", "The body")
    except UserError as error:
        raise BadJson(str(error).removesuffix("; restore it or remove it.") + ".") from error
    if not isinstance(values, dict):
        raise BadJson("The body must be an object of JSON, such as {}.")
    return values


class BadJson(UserError):
    """A body that is no JSON, or no object."""


def sample_pieces(asked: SampleAsked, spec: ModelSpec, limits: Limits, most: int) -> list[Piece]:
    """Return samples as pieces of at most `most` images. Raises UserError on what the model cannot do."""
    _check_range("samples", asked.samples, 1, limits.samples)
    _check_range("seed", asked.seed, 0)
    _check_range("first", asked.first, 0, _MOST_INDEX - asked.samples)
    sampler = sampler_of(spec, asked.sampler, asked.steps, asked.taus)
    _check_steps(sampler.nfe, limits)
    sampler.times(spec.diffusion)  # raises where they do not fit the model
    indices = torch.arange(asked.first, asked.first + asked.samples)
    draw = label_draw(spec, asked.label)
    labels = None if draw is None else draw.labels(indices, asked.seed)
    return _cut(sampler, asked.seed, indices, most, labels)


def edit_pieces(asked: EditAsked, spec: ModelSpec, limits: Limits, most: int) -> list[Piece]:
    """Return edits as pieces of at most `most` images. Raises UserError on what the model cannot do."""
    _check_range("images", len(asked.images), 1, limits.samples)
    _check_range("seed", asked.seed, 0)
    edit = plan_edit(
        asked.task,  # type: ignore[arg-type]
        spec.diffusion,
        spec.shape,
        steps=asked.steps,
        taus=asked.taus,
        factor=asked.factor,
        sigma=asked.sigma,
    )
    _check_steps(edit.nfe, limits)
    indices = torch.arange(len(asked.images))
    labels = _labels(asked, spec, indices)
    images, masks = _pictures(asked, spec, edit)
    return _cut(edit, asked.seed, indices, most, labels, images, masks)


def _labels(asked: EditAsked, spec: ModelSpec, indices: Tensor) -> Tensor | None:
    if asked.label:
        return torch.full_like(indices, class_number(spec, asked.label))
    draw = spec.label_draw
    return None if draw is None else draw.labels(indices, asked.seed)


def _pictures(asked: EditAsked, spec: ModelSpec, edit: Edit) -> tuple[Tensor, Tensor | None]:
    """Return the images, uint8 (n, c, h, w), and the masks of inpaint (n, 1, h, w)."""
    wanted = {1, len(asked.images)} if edit.task == "inpaint" else {0}
    if len(asked.masks) not in wanted:
        raise UserError(
            f"inpaint takes one mask, or one for each of {len(asked.images)} images, not {len(asked.masks)}."
            if edit.task == "inpaint"
            else f"Masks go with inpaint, not with {edit.task}; leave them out."
        )
    files = asked.masks * len(asked.images) if len(asked.masks) == 1 else asked.masks
    images, masks = [], []
    for number, text in enumerate(asked.images):
        name = f"Image {number}"
        picture = open_upload(_file(text, name), name, spec.reading)
        pixels = fitted_pixels(picture, name, spec.shape, resize=asked.resize, factor=edit.factor)
        images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        if files:
            name = f"Mask {number}"
            mask = open_mask(_file(files[number], name), name)
            masks.append(torch.from_numpy(fitted_mask(mask, name, picture, spec.shape)))
    return torch.stack(images), torch.stack(masks)[:, None] if masks else None


def _file(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{name} is not base64; give the bytes of an image file in it.") from error


def _cut(plan: Sampler | Edit, seed: int, indices: Tensor, most: int, *tensors: Tensor | None) -> list[Piece]:
    """Return pieces of at most `most` images. tensors: labels, images and masks."""
    names: Sequence[str] = ("labels", "images", "masks")
    pieces = []
    for rows in torch.arange(len(indices)).split(most):
        parts = {
            name: tensor[rows] for name, tensor in zip(names, tensors, strict=False) if tensor is not None
        }
        pieces.append(Piece(plan=plan, seed=seed, indices=indices[rows], **parts))
    return pieces


def _check_range(name: str, number: int, least: int, most: int | None = None) -> None:
    if number < least or (most is not None and number > most):
        limit = f"at least {least}" if most is None else f"{least} to {most:,}"
        raise UserError(f"{name} must be {limit}, not {number:,}.")


def _check_steps(evaluations: int, limits: Limits) -> None:
    if evaluations > limits.steps:
        raise UserError(
            f"An image takes at most {limits.steps:,} network evaluations here, not {evaluations:,}; "
            "give fewer steps."
        )
