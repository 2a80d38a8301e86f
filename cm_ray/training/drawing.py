"""Random numbers of a training step, as a function of seed, step and position in the global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from cm_ray.core.draw import Draw
from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.core.pairs import perturb
from cm_ray.core.types import Images, Labels
from cm_ray.networks.model import from_uint8
from cm_ray.recipes.recipe import Recipe


def draw_step(recipe: Recipe, step: int, images: Tensor, positions: Tensor) -> Draw:
    """Return times, noise and scales for uint8 images (b, c, h, w) at positions (b,) of the global batch."""
    x, augment = recipe.augmentation(from_uint8(images), recipe.seed, step, positions)
    numbers = recipe.method.numbers
    uniforms = uniform(recipe.seed, step, positions, Purpose.TIMES, () if numbers == 1 else (numbers,))
    t, s = recipe.method.times(uniforms, step, recipe.steps, recipe.noise)
    noise = normal(recipe.seed, step, positions, Purpose.NOISE, tuple(x.shape[1:]))
    signs = _signs(recipe, step, positions, tuple(x.shape[1:])) if recipe.method.projects else None
    scale = None
    if (guidance := recipe.method.guidance).asked:
        scale = guidance.draw(uniform(recipe.seed, step, positions, Purpose.GUIDANCE, (1,))[:, 0])
    return Draw(x, noise, perturb(x, noise, t), t, s, recipe.diffusion, step, signs, scale, augment)


def _signs(recipe: Recipe, step: int, positions: Tensor, shape: tuple[int, ...]) -> Images:
    """Return 1 or -1 for each pixel (b, c, h, w)."""
    return 1 - 2 * (uniform(recipe.seed, step, positions, Purpose.PROBES, shape) < 0.5).float()


def dropped_labels(recipe: Recipe, step: int, labels: Labels, positions: Tensor) -> Labels:
    """Return the labels (b,) at positions (b,) of the global batch, a share of them replaced by -1.

    The share is the network's label dropout; -1 is the null class. Ho & Salimans 2022, Algorithm 1.
    """
    if not (share := recipe.network.label_dropout):
        return labels
    dropped = uniform(recipe.seed, step, positions, Purpose.LABEL_DROPOUT, (1,))[:, 0] < share
    return torch.where(dropped, -1, labels)
