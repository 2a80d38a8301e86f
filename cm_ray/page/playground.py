"""What the page does with a model, without the page: requests in, pictures of every step out."""

from __future__ import annotations

import contextlib
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
from cm_ray.core.sampling_steps import Step
from cm_ray.core.types import Images
from cm_ray.data.source import Pixels
from cm_ray.data.uploads import fitted_pixels, open_upload
from cm_ray.editing.model_edits import check_label, edit_steps, interpolation_steps, shown_before
from cm_ray.editing.tasks import MOST_STEPS, Task, plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, from_uint8, to_uint8
from cm_ray.sampling.model_sampler import sampler_of
from cm_ray.sampling.pictures import grid_picture, to_nhwc
from cm_ray.sampling.text import text_of

MOST_SAMPLES = 64
"""Images of a picture, which are one batch."""
CANVAS = 384
"""Pixels that a picture to paint on is magnified to, about."""
_PAINTED = 0.25
"""Share of a pixel of the model's that must be painted over for it to be made anew."""


class Shown(NamedTuple):
    """What a person sees of a step."""

    picture: Image.Image
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How to edit; see `cm_ray.editing.tasks.plan_edit`."""

    task: Task
    steps: int = 0
    taus: tuple[float, ...] = ()
    factor: int = 0
    sigma: float = 0.0
    seed: int = 0
    label: int | None = None
    samples: int = 4


class Painted(NamedTuple):
    """What came of a canvas."""

    composite: Image.Image | None
    """The picture with what was painted on it."""
    layers: tuple[Image.Image, ...]
    """What was painted, RGBA."""


class Playground:
    """A model for one request at a time. Errors are UserErrors, for the page to show."""

    def __init__(self, model: Model) -> None:
        self.model, self.spec = model, model.spec
        self.device = next(model.parameters()).device
        self._turn = threading.Lock()

    def sample(self, count: int, steps: int, seed: int, label: int | None) -> Iterator[Shown]:
        """Yield a grid of `count` samples after every step; steps: 0 for the model's own sampler."""
        _check_numbers(count, steps, seed)
        check_label(self.spec, label)
        sampler, indices = sampler_of(self.spec, steps=steps), self._range(count)
        labels = self._labels(indices, label)
        made = self.model.sampling_steps(indices, seed=seed, sampler=sampler, labels=labels)
        count_of_steps = len(sampler.times(self.spec.diffusion)) - 1
        for number, step in enumerate(self._one_at_a_time(made), 1):
            picture = grid_picture(to_uint8(step.x).cpu())
            yield Shown(picture, f"{text_of(sampler)}: step {number} of {count_of_steps}")

    def between(self, seed: int, other: int, frames: int, ways: int, label: int | None) -> Iterator[Shown]:
        """Yield a grid whose rows lead from the samples of one seed to those of another."""
        _check_numbers(ways, 0, seed)
        _check_numbers(frames, 0, other)
        check_label(self.spec, label)
        if frames * ways > MOST_SAMPLES:
            raise UserError(f"Take 1 to {MOST_SAMPLES} images in all, not {frames} times {ways}.")
        indices = self._range(ways).repeat_interleave(frames)
        alpha = torch.linspace(0, 1, frames, device=self.device).repeat(ways)
        labels, sampler = self._labels(indices, label), self.spec.sampler
        made = interpolation_steps(
            self.model, sampler, alpha, indices=indices, seeds=(seed, other), labels=labels
        )
        for step in self._one_at_a_time(made):
            yield Shown(grid_picture(to_uint8(step.x).cpu(), columns=frames), f"seed {seed} to seed {other}")

    def one_sample(self, seed: int, label: int | None) -> tuple[Pixels, int | None]:
        """Return a sample to edit, uint8 (h, w, c), and its class if the model has any."""
        _check_numbers(1, 0, seed)
        check_label(self.spec, label)
        indices, sampler = self._range(1), self.spec.sampler
        labels = self._labels(indices, label)
        labels = self.model.sample_labels(indices, seed) if labels is None else labels
        *_, last = self._one_at_a_time(
            self.model.sampling_steps(indices, seed=seed, sampler=sampler, labels=labels)
        )
        pixels: Pixels = to_nhwc(to_uint8(last.x))[0]
        return pixels, None if labels is None else int(labels[0])

    def opened(self, data: bytes) -> Pixels:
        """Return an uploaded file as the model takes images, cropped and resized, uint8 (h, w, c)."""
        picture = open_upload(data, "The file")
        return fitted_pixels(picture, "The file", self.spec.shape, resize=True)

    def canvas(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Return an image magnified so that it can be painted on, (h, w, 3)."""
        factor = max(1, round(CANVAS / max(pixels.shape[:2])))
        large = pixels.repeat(factor, 0).repeat(factor, 1)
        return np.repeat(large, 3, 2) if pixels.shape[2] == 1 else large

    def edit(self, wish: Wish, given: Pixels | None, painted: Painted) -> Iterator[Shown]:
        """Yield a row of before, results and the image given, after every step.

        inpaint makes anew what was painted over; stroke takes the picture with what was painted on it;
        denoise adds the noise first.
        """
        _check_numbers(wish.samples, wish.steps, wish.seed)
        check_label(self.spec, wish.label)
        if given is None:
            raise UserError("There is no image yet: upload one, or take a sample.")
        settings = {"steps": wish.steps, "taus": wish.taus, "factor": wish.factor, "sigma": wish.sigma}
        edit = plan_edit(wish.task, self.spec.diffusion, self.spec.shape, **settings)  # type: ignore[arg-type]
        mask = self._mask(painted).to(self.device) if wish.task == "inpaint" else None
        image = self._composite(painted, given) if wish.task == "stroke" else given
        y = _as_batch(image).to(self.device)
        told = y + wish.sigma * self._noise(wish.seed) if wish.task == "denoise" else y
        row = [shown_before(edit, told, mask), *[torch.zeros_like(y)] * wish.samples, y]
        indices = self._range(1)
        made = [
            edit_steps(
                self.model,
                edit,
                told,
                indices=indices,
                seed=wish.seed + k,
                mask=mask,
                labels=self._labels(indices, wish.label),
            )
            for k in range(wish.samples)
        ]
        for number, steps in enumerate(self._all_at_a_time(made), 1):
            row[1:-1] = [step.x for step in steps]
            picture = grid_picture(to_uint8(torch.cat(row)).cpu(), columns=len(row), least_pixels=900)
            yield Shown(picture, f"{wish.task}: step {number} of {len(edit.times) - 1}")

    def _one_at_a_time(self, steps: Iterator[Step]) -> Iterator[Step]:
        for (step,) in self._all_at_a_time([steps]):
            yield step

    def _all_at_a_time(self, made: list[Iterator[Step]]) -> Iterator[tuple[Step, ...]]:
        """Yield the steps of several results together, holding the model for the time of each only."""
        while True:
            with self._turn, _memory_explained():
                steps = [next(one, None) for one in made]
            if any(step is None for step in steps):
                return
            yield tuple(step for step in steps if step is not None)

    def _mask(self, painted: Painted) -> Tensor:
        """Return what is kept, (1, 1, h, w): all that was not painted over."""
        _, h, w = self.spec.shape
        over = np.zeros((h, w), bool)
        for layer in painted.layers:
            alpha = layer.convert("RGBA").getchannel("A").resize((w, h), Image.Resampling.BOX)
            over |= np.asarray(alpha) >= 255 * _PAINTED
        if not over.any():
            raise UserError("Nothing is painted over yet: paint on the image what is to be made anew.")
        return torch.from_numpy(~over)[None, None]

    def _composite(self, painted: Painted, given: Pixels) -> Pixels:
        """Return the picture with what was painted on it, uint8 (h, w, c)."""
        if painted.composite is None or not painted.layers:
            return given
        c, h, w = self.spec.shape
        picture = painted.composite.convert("RGB").convert("L" if c == 1 else "RGB")
        return np.asarray(picture.resize((w, h), Image.Resampling.BOX)).reshape(h, w, c)

    def _noise(self, seed: int) -> Images:
        return normal(seed, 0, self._range(1), Purpose.NOISE, self.spec.shape)

    def _range(self, count: int) -> Tensor:
        return torch.arange(count, device=self.device)

    def _labels(self, indices: Tensor, label: int | None) -> Tensor | None:
        return None if label is None else torch.full_like(indices, label)


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise UserError("So many images do not fit into the GPU's memory: take fewer.") from error


def _as_batch(pixels: Pixels) -> Images:
    return from_uint8(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])


def _check_numbers(count: int | None, steps: int | None, seed: int | None) -> None:
    if count is None or steps is None or seed is None:
        raise UserError("A number is missing: fill in all fields.")
    if not 1 <= count <= MOST_SAMPLES:
        raise UserError(f"Take 1 to {MOST_SAMPLES} images, not {count}.")
    if not 0 <= steps <= MOST_STEPS:
        raise UserError(f"Take 0 to {MOST_STEPS} steps, not {steps}; 0 is the default.")
    if seed < 0:
        raise UserError(f"The seed must not be negative, but is {seed}.")
