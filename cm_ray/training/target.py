"""The networks of a step, as methods evaluate and differentiate them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cm_ray.core.derivative import Target
from cm_ray.core.draw import Draw
from cm_ray.core.types import Denoise, Images, Labels, Times
from cm_ray.networks.model import Model


def target_of(
    model: Model,
    draw: Draw,
    labels: Labels | None,
    seed: Callable[[], None],
    *,
    plain: bool,
) -> Target:
    """Return a network as the target of a step.

    seed: seeds the masks before every pass. draw: gives the guidance scale, where the student takes it, and
    the augmentation. plain: True if the training computes in float32 and does not compile, so that the
    derivative needs no other network than the values.
    """

    def evaluate(x: Images, t: Times, s: Times | None = None) -> Images:
        seed()
        return model(x, t, labels, s, draw.student_scale, draw.augment)

    def precise(x: Images, t: Times, s: Times | None = None) -> Images:
        with model.computing_in("float32"), torch.compiler.set_stance("force_eager"):
            return evaluate(x, t, s)

    return Target(evaluate, None if plain else precise)


def student_of(replica: nn.Module, draw: Draw, labels: Labels | None, seed: Callable[[], None]) -> Denoise:
    """Return the student of a step as a function of noisy images and times, which carries the gradient.

    replica: the student, or its data-parallel module. draw: has its second time, its guidance scale and the
    augmentation, where it takes them. seed: seeds the masks before every pass.
    """

    def evaluate(x: Images, t: Times) -> Images:
        seed()
        images: Images = replica(x, t, labels, draw.end, draw.student_scale, draw.augment)
        return images

    return evaluate
