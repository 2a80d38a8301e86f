"""Zero-shot editing with a model: each task as a call of `replacement`.  Song et al. 2023, Algorithm 4."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Denoise, Images, Labels, Noise, Times
from cm_ray.editing import replacement as editing
from cm_ray.editing.replacement import Known
from cm_ray.editing.tasks import Edit
from cm_ray.errors import UserError
from cm_ray.networks.model import Model
from cm_ray.sampling.samplers import Sampler
from cm_ray.sampling.sampling_steps import Step, clipped


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
    """Yield the steps of editing images (b, c, h, w) in [-1, 1]; the last step has the result.

    indices: int64 (b,), indices of the noise: an index and a seed give the same noise in any batch. mask:
    for inpaint, (b, 1, h, w), True where the image is kept. labels: classes (b,) for a conditional model;
    by default drawn with the seed. A wrong class spoils the result. Known values are kept as in
    `replacement`; the others are in [-1, 1], up to noise of t_min. The model is put in eval mode. Raises
    ValueError without a mask for inpaint.
    """
    model.eval()
    if labels is None:
        labels = model.sample_labels(indices, seed)
    yield from edit_trajectory(
        edit,
        lambda x_t, t: model(x_t, t, labels),
        lambda draw: normal(seed, draw, indices, Purpose.EDIT, model.spec.shape),
        images,
        model.spec.diffusion,
        mask,
    )


def edit_trajectory(
    edit: Edit,
    denoise: Denoise,
    noise: Noise,
    images: Images,
    levels: NoiseLevels,
    mask: Tensor | None = None,
) -> Iterator[Step]:
    """Yield the steps of editing images (b, c, h, w) by a model; see `edit_steps`.

    denoise: a consistency function or a denoiser of the images in their order, not clipped yet. noise:
    standard normal; denoise, which is given its noise with the image, adds none. levels: noise levels of the
    model.
    """
    known = _known(edit, images, mask)
    if edit.sampler is not None:
        assert known is not None, "an edit by a sampler knows a part"
        yield from editing.conditional(edit.sampler, denoise, noise, levels, known)
        return
    yield from editing.replacement(
        clipped(denoise),
        lambda draw: noise(draw) * (edit.task != "denoise"),
        edit.times,
        images if known is None else known.alone(),
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
    """Return the known part of images (b, c, h, w) as an image; unknown pixels are grey."""
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
    """Yield the steps of sampling with noise between that of two seeds.

    alpha: (b,), 0 for the samples `indices` of the first seed, 1 for those of the second. The noise of every
    step is interpolated on the sphere, so that both ends are these samples bit for bit, with any sampler.
    labels: classes (b,), which a conditional model needs, because each seed draws other classes. Raises
    UserError when they are missing.
    """
    if labels is None and model.spec.classes:
        raise UserError("Interpolation with a conditional model needs a class; give a label.")
    model.eval()

    def draw_of(seed: int) -> Noise:
        return lambda draw: normal(seed, draw, indices, Purpose.SAMPLE, model.spec.shape)

    noise = editing.interpolated(draw_of(seeds[0]), draw_of(seeds[1]), alpha)

    f, given = model.guided(sampler), () if labels is None else (labels,)

    def denoise(x_t: Images, t: Times, s: Times | None = None) -> Images:
        return f(x_t, t, *given) if s is None else f(x_t, t, labels, s)

    yield from sampler.trajectory(denoise, noise, model.spec.diffusion)


def _known(edit: Edit, images: Images, mask: Tensor | None) -> Known | None:
    """Return the known part of images for a task; None for tasks that change the whole image."""
    if edit.task == "inpaint":
        if mask is None:
            raise ValueError("inpaint needs a mask")
        return editing.inpainting(images, mask)
    if edit.task == "colorize":
        return editing.colorization(images)
    return editing.super_resolution(images, edit.factor) if edit.task == "upscale" else None
