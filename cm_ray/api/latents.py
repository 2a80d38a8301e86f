"""Likelihoods and latents of images under a diffusion model, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm_ray.core.likelihood import FINE, decode, encode
from cm_ray.core.types import Images, Labels
from cm_ray.drawing.model_labels import Label, class_number
from cm_ray.errors import UserError
from cm_ray.evaluation.likelihood import LikelihoodRequest, check_density, likelihoods, rowwise
from cm_ray.networks.model import Model, from_uint8, to_uint8

Classes = Label | Sequence[Label] | None
"""A class of all images by its name or number, one for each image, or None for a model without classes."""


def classes_of_images(model: Model, label: Classes, count: int) -> Labels | None:
    """Return the labels of `count` images (count,); None for a model without classes.

    Raises UserError when the model has no such class, or has classes and none is given: a likelihood and a
    latent depend on it.
    """
    if label is None:
        if model.spec.classes:
            raise UserError("The model has classes: give the label of every image, or one for all.")
        return None
    given = [label] * count if isinstance(label, str | int) else list(label)
    if len(given) != count:
        raise UserError(
            f"There are {count} images and {len(given)} labels: give one for each, or one for all."
        )
    return torch.tensor([class_number(model.spec, each) for each in given])


def bits_of_images(
    model: Model, name: str, pixels: Tensor, label: Classes, request: LikelihoodRequest
) -> NDArray[np.float64]:
    """Return the bits per dimension of uint8 images (n, c, h, w), float64 (n,)."""
    check_density(model.spec, name)
    places = torch.arange(len(pixels))
    labels = classes_of_images(model, label, len(pixels))
    labels = torch.full_like(places, -1) if labels is None else labels
    return likelihoods(model, pixels, labels, places, request).bits


def encoded(model: Model, name: str, pixels: Tensor, label: Classes) -> Images:
    """Return the latents of uint8 images, float32 (n, c, h, w); see `core.likelihood.encode`."""
    check_density(model.spec, name)
    device = next(model.parameters()).device
    denoise = rowwise(model.eval(), _on(device, classes_of_images(model, label, len(pixels))))
    return encode(denoise, from_uint8(pixels).to(device), model.spec.diffusion, FINE).state.float()


def decoded(model: Model, name: str, latents: Images, label: Classes) -> tuple[Tensor, Labels | None]:
    """Return the uint8 images (n, c, h, w) that latents flow to, and their labels.

    Raises UserError when the latents have another shape than the model's images.
    """
    check_density(model.spec, name)
    if latents.ndim != 4 or tuple(latents.shape[1:]) != model.spec.shape:
        wanted = ", ".join(map(str, model.spec.shape))
        raise UserError(
            f"The latents must be (n, {wanted}), as encode returns them, not {tuple(latents.shape)}."
        )
    device = next(model.parameters()).device
    labels = _on(device, classes_of_images(model, label, len(latents)))
    end = decode(rowwise(model.eval(), labels), latents.to(device), model.spec.diffusion, FINE).state
    return to_uint8(end), labels


def _on(device: torch.device, labels: Labels | None) -> Labels | None:
    return None if labels is None else labels.to(device)
