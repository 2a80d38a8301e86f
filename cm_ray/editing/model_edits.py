"""Zero-shot editing with a model: its tasks as settings of `cm_ray.editing.replacement`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.core.samplers import Sampler
from cm_ray.core.sampling_steps import Step, clipped
from cm_ray.core.types import Images, Labels, Noise
from cm_ray.editing import replacement as editing
from cm_ray.editing.replacement import Known
from cm_ray.editing.tasks import Edit
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec


@torch.no_grad()
def edit_steps(
    model: Model,
    edit: Edit,
    images: Images,
    *,
    indices: Tensor,
    seed: int,
    mask: Tensor | None = None,
    labels: Labels | None = None,
) -> Iterator[Step]:
    """Yield the steps of editing images (b, c, h, w) in [-1, 1]; the last one's are the result.

    indices: int64 (b,), which noise is whose: image i of a seed is edited in the same way in whatever batch.
    mask: of inpaint, (b, 1, h, w), true where the image is kept. labels: by default drawn with the seed, for
    a conditional model; a class that contradicts the image spoils the result. What is kept is kept as
    `editing.replacement` says; the rest is in [-1, 1] up to the noise of t_min. Puts the model in eval mode.
    """
    model.eval()
    if labels is None:
        labels = model.sample_labels(indices, seed)
    known = _known(edit, images, mask)
    start = images if known is None else known.alone()
    yield from editing.replacement(
        clipped(lambda x_t, t: model(x_t, t, labels)),
        lambda draw: normal(seed, draw, indices, Purpose.EDIT, model.spec.shape) * (edit.task != "denoise"),
        edit.times,
        start,
        known,
    )


def edited(
    model: Model,
    edit: Edit,
    images: Images,
    *,
    indices: Tensor,
    seed: int,
    mask: Tensor | None = None,
    labels: Labels | None = None,
) -> Images:
    """Return the edited images (b, c, h, w); see `edit_steps`."""
    *_, last = edit_steps(model, edit, images, indices=indices, seed=seed, mask=mask, labels=labels)
    return last.x


def shown_before(edit: Edit, images: Images, mask: Tensor | None = None) -> Images:
    """Return what a task is told of images (b, c, h, w), as a person would see it; grey is not known."""
    if edit.task == "colorize":
        return editing.luminance(images).expand_as(images)
    known = _known(edit, images, mask)
    return images if known is None else known.alone()


@torch.no_grad()
def interpolation_steps(
    model: Model,
    sampler: Sampler,
    alpha: Tensor,
    *,
    indices: Tensor,
    seeds: tuple[int, int],
    labels: Labels | None = None,
) -> Iterator[Step]:
    """Yield the steps of sampling between two seeds: at alpha (b,) 0 the samples `indices` of the first.

    The noise of every step is mixed on the sphere, so the ends are those samples to the bit, whatever the
    sampler. labels: of a conditional model, on the whole way: those that are drawn are other ones for every
    seed, so that no way would end in the second one's samples. Raises UserError when they are missing.
    """
    if labels is None and model.spec.classes:
        raise UserError("Interpolation between samples of a model with classes takes a class: say a label.")
    model.eval()

    def draw_of(seed: int) -> Noise:
        return lambda draw: normal(seed, draw, indices, Purpose.SAMPLE, model.spec.shape)

    noise = editing.interpolated(draw_of(seeds[0]), draw_of(seeds[1]), alpha)
    yield from sampler.trajectory(lambda x_t, t: model(x_t, t, labels), noise, model.spec.diffusion)


def check_label(spec: ModelSpec, label: int | None) -> None:
    """Raise UserError when a model has no such class."""
    if label is not None and not 0 <= label < spec.classes:
        known = (
            f"it has classes 0 to {spec.classes - 1}" if spec.classes else "it was trained without classes"
        )
        raise UserError(f"The label {label} does not fit the model: {known}.")


def _known(edit: Edit, images: Images, mask: Tensor | None) -> Known | None:
    """Return what is known of images in a task; None where it is all or nothing."""
    if edit.task == "inpaint":
        if mask is None:
            raise ValueError("inpaint needs a mask")
        return editing.inpainting(images, mask)
    if edit.task == "colorize":
        return editing.colorization(images)
    return editing.super_resolution(images, edit.factor) if edit.task == "upscale" else None
