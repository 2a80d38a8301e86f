"""Pieces of requests, and how many of them are made in the same network calls.

Noise, classes and images belong to each piece, so that only the network sees them together. It sees them in
batches of the sizes that `row_counts` has found, filled up with copies, so that what else is asked for at the
same time changes no bit of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cm_ray.core.noise import Purpose, normal
from cm_ray.core.types import Images, Jump, Noise, Times
from cm_ray.drawing.requests import batch_in_memory
from cm_ray.editing.model_edits import edit_trajectory
from cm_ray.editing.tasks import Edit
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, from_uint8, to_uint8
from cm_ray.sampling.samplers import Sampler

Made = Tensor | UserError
"""Images, uint8 (n, c, h, w), on the CPU; or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Images that a request asks for, at most as many as a network call has. All tensors are on the CPU."""

    plan: Sampler | Edit
    """The sampler or the edit that makes them; pieces of equal plans are made together."""
    seed: int
    indices: Tensor
    """Indices of their noise, int64 (n,)."""
    labels: Tensor | None = None
    """Their classes (n,); None for a model without."""
    images: Tensor | None = None
    """The images that are edited, uint8 (n, c, h, w)."""
    masks: Tensor | None = None
    """Places where images are kept, (n, 1, h, w), for inpaint."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    @property
    def key(self) -> Hashable:
        """Equal for pieces that can be made together."""
        return self.plan, self.masks is None


def images_of(pieces: Sequence[Piece]) -> int:
    """Return the number of images of several pieces."""
    return sum(map(len, pieces))


def made_together(model: Model, pieces: Sequence[Piece], counts: Sequence[int]) -> list[Made]:
    """Return what each piece asks for; pieces of equal plans share their network calls.

    counts: the sizes of batches, ascending; see `equal_counts`. A piece whose images are not finite fails
    alone; pieces that need more memory than there is fail together.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, piece in enumerate(pieces):
        groups.setdefault(piece.key, []).append(place)
    made: dict[int, Made] = {}
    for places in groups.values():
        made |= zip(places, _group(model, [pieces[place] for place in places], counts), strict=True)
    return [made[place] for place in range(len(pieces))]


def _group(model: Model, pieces: Sequence[Piece], counts: Sequence[int]) -> list[Made]:
    try:
        with torch.no_grad(), batch_in_memory(f"{counts[-1]:,} images at a time"):
            x = _trajectory_end(model, pieces, counts)
    except UserError as error:
        return [error] * len(pieces)
    return [_pixels(part) for part in x.split([len(piece) for piece in pieces])]


def _trajectory_end(model: Model, pieces: Sequence[Piece], counts: Sequence[int]) -> Images:
    """Return the images of pieces of one plan, in [-1, 1], up to the noise of t_min."""
    model.eval()
    device, plan = next(model.parameters()).device, pieces[0].plan
    f = model.guided(plan) if isinstance(plan, Sampler) else model
    denoise = filled_up(f, _joined([piece.labels for piece in pieces], device), counts)
    if isinstance(plan, Sampler):
        noise = _noise(pieces, Purpose.SAMPLE, model, device)
        *_, last = plan.trajectory(denoise, noise, model.spec.diffusion)
        return last.x
    images = _joined([piece.images for piece in pieces], device)
    assert images is not None, "a piece of an edit has images"
    masks = _joined([piece.masks for piece in pieces], device)
    noise = _noise(pieces, Purpose.EDIT, model, device)
    *_, last = edit_trajectory(plan, denoise, noise, from_uint8(images), model.spec.diffusion, masks)
    return last.x


def filled_up(model: Callable[..., Images], labels: Tensor | None, counts: Sequence[int]) -> Jump:
    """Return the model as a function of noisy images and times that calls it with `counts` images alone.

    labels: the classes of all images. Larger batches are cut; copies of the last image fill up smaller ones.
    """

    def denoise(x_t: Images, t: Times, s: Times | None = None) -> Images:
        parts = []
        for rows in torch.arange(len(x_t), device=x_t.device).split(counts[-1]):
            size = next(count for count in counts if count >= len(rows))
            filled = torch.cat([rows, rows[-1:].expand(size - len(rows))])
            own = None if labels is None else labels[filled]
            given = (own, s[filled]) if s is not None else () if own is None else (own,)
            parts.append(model(x_t[filled], t[filled], *given)[: len(rows)])
        return torch.cat(parts)

    return denoise


def _noise(pieces: Sequence[Piece], purpose: Purpose, model: Model, device: torch.device) -> Noise:
    """Return the noise of all pieces: of each by its own seed and indices."""
    rows = [(piece.seed, piece.indices.to(device)) for piece in pieces]
    shape = model.spec.shape
    return lambda draw: torch.cat([normal(seed, draw, indices, purpose, shape) for seed, indices in rows])


def _joined(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    given = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(given).to(device) if given else None


def _pixels(part: Images) -> Made:
    try:
        return to_uint8(part).cpu()
    except UserError as error:
        return error
