"""The work behind the page, without the page: it takes settings and yields a picture after every step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.core.out_of_memory import in_memory
from cm_ray.core.types import Images
from cm_ray.data.interface.source import Pixels
from cm_ray.data.pictures.uploads import fitted_pixels, open_upload
from cm_ray.drawing.model_labels import check_trained
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import grid_picture, to_nhwc
from cm_ray.editing.model_edits import edit_steps, interpolation_steps, shown_before
from cm_ray.editing.tasks import MOST_STEPS, Task, plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, from_uint8, to_uint8
from cm_ray.sampling.sampling_steps import Step
from cm_ray.sampling.text import text_of

MOST_SAMPLES = 64
"""Maximal number of images in a picture; they are one batch."""
CANVAS = 384
"""Approximate size, in pixels, to which a picture is enlarged for painting."""
_ALONE = 192
"""Approximate size, in pixels, to which an image of the gallery is enlarged."""
_PAINTED = 0.25
"""Share of a model's pixel that must be painted over for it to be generated."""


class SeedSample(NamedTuple):
    """Sample 0 of a seed."""

    pixels: Pixels
    """uint8 (h, w, c)."""
    seed: int
    label: int | None
    """Its class; None for a model without."""


class Frame(NamedTuple):
    """The picture and the text that the page shows after a step."""

    picture: Image.Image
    """The picture."""
    text: str
    """The text below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditForm:
    """Settings of an edit; see `cm_ray.editing.tasks.plan_edit`."""

    task: Task
    steps: int = 0
    taus: tuple[float, ...] = ()
    factor: int = 0
    sigma: float = 0.0
    seed: int = 0
    label: int | None = None
    samples: int = 4


class CanvasContent(NamedTuple):
    """The content of a canvas."""

    composite: Image.Image | None
    """The picture together with the strokes; None when there is no picture."""
    layers: tuple[Image.Image, ...]
    """The strokes alone, RGBA."""


class Playground:
    """A model that serves one request at a time. All its errors are UserErrors, for the page to show."""

    def __init__(self, model: Model) -> None:
        self.model, self.spec = model, model.spec
        self.device = next(model.parameters()).device
        self._turn = threading.Lock()

    def sample(
        self, count: int, steps: int, seed: int, label: int | None, *, smooth: bool = False
    ) -> Iterator[Frame]:
        """Yield a grid of `count` samples after every step.

        steps: 0 stands for the model's own sampler. smooth: how small images are enlarged.
        """
        _check_numbers(count, steps, seed)
        self._check_class(label)
        sampler, indices = sampler_of(self.spec, steps=steps), self._range(count)
        labels = self._labels(indices, label)
        made = self.model.sampling_steps(indices, seed=seed, sampler=sampler, labels=labels)
        count_of_steps = len(sampler.times(self.spec.diffusion)) - 1
        for number, step in enumerate(self._one_at_a_time(made), 1):
            picture = grid_picture(to_uint8(step.x).cpu(), smooth=smooth)
            yield Frame(picture, f"`{text_of(sampler)}`: step {number} of {count_of_steps}")

    @torch.no_grad()
    def seeds(self, first: int, count: int, steps: int, label: int | None) -> list[SeedSample]:
        """Return sample 0 of `count` seeds from `first` on, each as the model makes it of its seed alone."""
        _check_numbers(count, steps, first)
        self._check_class(label)
        sampler, zero, seeds = sampler_of(self.spec, steps=steps), self._range(1), range(first, first + count)
        draw, labels = self.spec.label_draw, self._labels(zero.repeat(count), label)
        if labels is None and draw is not None:
            labels = torch.cat([draw.labels(zero, seed) for seed in seeds])
        guided, given = self.model.guided(sampler), () if labels is None else (labels,)
        *_, last = self._one_at_a_time(
            sampler.trajectory(
                lambda x_t, t: guided(x_t, t, *given),
                lambda draw: torch.cat(
                    [normal(seed, draw, zero, Purpose.SAMPLE, self.spec.shape) for seed in seeds]
                ),
                self.spec.diffusion,
            )
        )
        numbers = [None] * count if labels is None else labels.tolist()
        return [*map(SeedSample, to_nhwc(to_uint8(last.x)), seeds, numbers)]

    def shown_alone(self, sample: SeedSample, *, smooth: bool = False) -> tuple[Image.Image, str]:
        """Return a sample of a seed, enlarged, and its caption."""
        pixels = torch.from_numpy(sample.pixels.copy()).permute(2, 0, 1)[None]
        name = "" if sample.label is None else f" · {self.spec.class_names[sample.label]}"
        return grid_picture(pixels, least_pixels=_ALONE, smooth=smooth), f"{sample.seed}{name}"

    def between(
        self, seed: int, other: int, frames: int, ways: int, label: int | None, *, smooth: bool = False
    ) -> Iterator[Frame]:
        """Yield a grid whose rows interpolate between the samples of two seeds."""
        _check_numbers(ways, 0, seed)
        _check_numbers(frames, 0, other)
        self._check_class(label)
        if frames * ways > MOST_SAMPLES:
            raise UserError(f"Take 1 to {MOST_SAMPLES} images in total, not {frames} times {ways}.")
        indices = self._range(ways).repeat_interleave(frames)
        alpha = torch.linspace(0, 1, frames, device=self.device).repeat(ways)
        labels, sampler = self._labels(indices, label), self.spec.sampler
        made = interpolation_steps(
            self.model, sampler, alpha, indices=indices, seeds=(seed, other), labels=labels
        )
        for step in self._one_at_a_time(made):
            picture = grid_picture(to_uint8(step.x).cpu(), columns=frames, least_pixels=900, smooth=smooth)
            yield Frame(picture, f"seed {seed} to seed {other}")

    def one_sample(self, seed: int, label: int | None) -> tuple[Pixels, int | None]:
        """Return a sample to edit, uint8 (h, w, c), and its class if the model has classes."""
        _check_numbers(1, 0, seed)
        self._check_class(label)
        indices, sampler = self._range(1), self.spec.sampler
        labels = self._labels(indices, label)
        labels = self.model.sample_labels(indices, seed) if labels is None else labels
        *_, last = self._one_at_a_time(
            self.model.sampling_steps(indices, seed=seed, sampler=sampler, labels=labels)
        )
        pixels: Pixels = to_nhwc(to_uint8(last.x))[0]
        return pixels, None if labels is None else int(labels[0])

    def opened(self, data: bytes) -> Pixels:
        """Return an uploaded file, cropped and resized for the model, uint8 (h, w, c)."""
        picture = open_upload(data, "The file", self.spec.reading)
        return fitted_pixels(picture, "The file", self.spec.shape, resize=True)

    def canvas(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return an image enlarged for painting, (h, w, 3)."""
        factor = max(1, round(CANVAS / max(pixels.shape[:2])))
        large = pixels.repeat(factor, 0).repeat(factor, 1)
        return np.repeat(large, 3, 2) if pixels.shape[2] == 1 else large

    def edit(
        self, form: EditForm, given: Pixels | None, painted: CanvasContent, *, smooth: bool = False
    ) -> Iterator[Frame]:
        """Yield, after every step, a row of pictures: the input, the results and the given image.

        inpaint generates the painted pixels; stroke takes the picture together with the strokes; denoise adds
        the noise first.
        """
        _check_numbers(form.samples, form.steps, form.seed)
        self._check_class(form.label)
        if given is None:
            raise UserError("There is no image yet; upload one or take a sample.")
        settings = {"steps": form.steps, "taus": form.taus, "factor": form.factor, "sigma": form.sigma}
        edit = plan_edit(form.task, self.spec.diffusion, self.spec.shape, **settings)  # type: ignore[arg-type]
        mask = self._mask(painted).to(self.device) if form.task == "inpaint" else None
        image = self._composite(painted, given) if form.task == "stroke" else given
        y = _as_batch(image).to(self.device)
        noisy = y + form.sigma * self._noise(form.seed) if form.task == "denoise" else y
        row = [shown_before(edit, noisy, mask), *[torch.zeros_like(y)] * form.samples, y]
        indices = self._range(1)
        made = [
            edit_steps(
                self.model,
                edit,
                noisy,
                indices=indices,
                seed=form.seed + k,
                mask=mask,
                labels=self._labels(indices, form.label),
            )
            for k in range(form.samples)
        ]
        for number, steps in enumerate(self._all_at_a_time(made), 1):
            row[1:-1] = [step.x for step in steps]
            picture = grid_picture(
                to_uint8(torch.cat(row)).cpu(), columns=len(row), least_pixels=900, smooth=smooth
            )
            yield Frame(picture, f"{form.task}: step {number} of {len(edit.times) - 1}")

    def _one_at_a_time(self, steps: Iterator[Step]) -> Iterator[Step]:
        for (step,) in self._all_at_a_time([steps]):
            yield step

    def _all_at_a_time(self, made: list[Iterator[Step]]) -> Iterator[tuple[Step, ...]]:
        """Yield the steps of several results together; the model is locked only while a step is computed."""
        while True:
            with self._turn, in_memory("So many images", "take fewer"):
                steps = [next(one, None) for one in made]
            if any(step is None for step in steps):
                return
            yield tuple(step for step in steps if step is not None)

    def _mask(self, painted: CanvasContent) -> Tensor:
        """Return the mask of pixels that are kept, (1, 1, h, w): those that were not painted over."""
        _, h, w = self.spec.shape
        over = np.zeros((h, w), bool)
        for layer in painted.layers:
            alpha = layer.convert("RGBA").getchannel("A").resize((w, h), Image.Resampling.BOX)
            over |= np.asarray(alpha) >= 255 * _PAINTED
        if not over.any():
            raise UserError("Nothing is painted over yet; paint over the part that is to be generated.")
        return torch.from_numpy(~over)[None, None]

    def _composite(self, painted: CanvasContent, given: Pixels) -> Pixels:
        """Return the picture together with the strokes, uint8 (h, w, c)."""
        if painted.composite is None or not painted.layers:
            return given
        c, h, w = self.spec.shape
        picture = painted.composite.convert("RGB").convert("L" if c == 1 else "RGB")
        return np.asarray(picture.resize((w, h), Image.Resampling.BOX)).reshape(h, w, c)

    def _noise(self, seed: int) -> Images:
        return normal(seed, 0, self._range(1), Purpose.NOISE, self.spec.shape)

    def _range(self, count: int) -> Tensor:
        return torch.arange(count, device=self.device)

    def _check_class(self, label: int | None) -> None:
        if label is not None:
            check_trained(self.spec, label)

    def _labels(self, indices: Tensor, label: int | None) -> Tensor | None:
        return None if label is None else torch.full_like(indices, label)


def _as_batch(pixels: Pixels) -> Images:
    return from_uint8(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])


def _check_numbers(count: int | None, steps: int | None, seed: int | None) -> None:
    if count is None or steps is None or seed is None:
        raise UserError("A number is missing; fill in all fields.")
    if not 1 <= count <= MOST_SAMPLES:
        raise UserError(f"Take 1 to {MOST_SAMPLES} images, not {count}.")
    if not 0 <= steps <= MOST_STEPS:
        raise UserError(f"Take 1 to {MOST_STEPS} steps, or 0 for the default, not {steps}.")
    if seed < 0:
        raise UserError(f"The seed must be 0 or more, not {seed}.")
