"""Recipes for images of any kind and a limited time: a diffusion model, and its distillation.

The settings are those of the recipes of the 8x8 digits, which were found for minutes on two cores, with
networks of several sizes. How long each stage may take is decided in `cm_ray.budget.time_plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cm_ray.core.augmentation import NoAugmentation
from cm_ray.core.averages import PowerEMA
from cm_ray.core.precondition import EDM
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import ADM, Network
from cm_ray.recipes.digits import cd_digits, edm_digits, ict_digits
from cm_ray.recipes.own_images import extractor_for, size_in_words
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.recipes.sections import (
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    RAdam,
    TrackingSettings,
)
from cm_ray.settings.tree import override

SIZES = ((32, 1), (64, 1), (64, 2), (128, 2), (192, 3))
"""Channels and blocks of the networks to choose from."""
_LOWEST = 8
"""Pixels per side of the last level; half of it where the images have no more."""
_RATE = 0.064
"""Product of step size and channels: 2e-3 at 32 channels."""
_SAMPLES = 2000
"""Samples of a score at most: enough to compare, at a small part of the time."""
_SHARED = ("averages", "augmentation", "data", "network", "noise", "cluster", "tracking", "checkpoint")
"""Settings that a teacher has in common with its student, with all below them."""
_SHARED_PATHS = ("seed", "batch_size", "accumulate", "precision", "compile", "log_every", "column")


@dataclass(frozen=True, kw_only=True)
class AutoTraining:
    """A training whose settings are to be chosen."""

    hours: float
    """Time for all of it."""
    data: DataSettings
    """The images."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted path that are given, and not chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The facts about images that decide a recipe for them."""

    path: str
    """The images, or the name of a data set."""
    count: int
    """Number of images."""
    shape: tuple[int, int, int]
    """(c, h, w) of every image."""
    classes: int
    """Number of classes; 0 without labels."""
    sigma_data: float
    """Standard deviation of the images in [-1, 1]."""

    def __post_init__(self) -> None:
        """Raise UserError on images that no network fits."""
        _, height, width = self.shape
        if height % 4 or width % 4 or min(height, width) < _LOWEST:
            raise UserError(
                f"The images are {width}x{height}: sides of {_LOWEST} pixels or more, multiples of 4, are "
                f"needed; set {setting('data.size')}."
            )


def networks_for(data: DataFacts) -> tuple[ADM, ...]:
    """Return networks for the images, from the smallest on; all can be exported for diffusers."""
    (height, width), mult = data.shape[1:], [1]
    while (min(height, width) > _LOWEST and height % 2 == width % 2 == 0) or len(mult) == 1:
        height, width = height // 2, width // 2
        mult.append(2)
    side = min(height, width)
    return tuple(
        ADM(
            channels=channels,
            channel_mult=tuple(mult),
            blocks=blocks,
            attention_resolutions=(side,) if channels == 32 else (side, 2 * side),
            head_channels=32,
            norm_groups=8 if channels == 32 else 32,
            conditional=data.classes > 0,
        )
        for channels, blocks in SIZES
    )


def teacher_for(data: DataFacts, network: Network, batch_size: int) -> Recipe:
    """Return a recipe of a diffusion model; its number of steps is still to be set."""
    return _sized(edm_digits(), "teacher", data, network, batch_size)


def student_for(data: DataFacts, network: Network, batch_size: int) -> Recipe:
    """Return a recipe of the distillation of such a model in few steps of Heun, as in the paper."""
    recipe = _sized(cd_digits(), "auto", data, network, batch_size)
    rate = recipe.optimizer.learning_rate / 2
    return override(recipe, {"init_from.model": TEACHER, "optimizer.learning_rate": rate})


def alone_for(data: DataFacts, network: Network, batch_size: int) -> Recipe:
    """Return a recipe of improved consistency training, which needs no teacher."""
    return _sized(ict_digits(), "auto", data, network, batch_size)


def distilled_from(recipe: Recipe, teacher: str) -> Recipe:
    """Return the recipe of a student with its teacher named."""
    return override(recipe, {"teacher.model": teacher})


def lasting(recipe: Recipe, steps: int) -> Recipe:
    """Return a recipe with this many steps, ten to twenty checkpoints, and rows of the log to see it by."""
    every = max(1, steps // 15)
    return override(
        recipe,
        {"steps": steps, "checkpoint.every": every, "log_every": max(1, min(100, steps // 40))},
    )


def with_changes(recipe: Recipe, changes: Mapping[str, Any], *, teacher: bool = False) -> Recipe:
    """Return a recipe with settings by dotted path; of a teacher, those that it shares with its student.

    Raises SettingError as `override`.
    """
    if teacher:
        changes = {path: value for path, value in changes.items() if _is_shared(path)}
    return override(recipe, changes)


def _is_shared(path: str) -> bool:
    return path in _SHARED_PATHS or path.partition(".")[0] in _SHARED


def _sized(base: Recipe, name: str, data: DataFacts, network: Network, batch_size: int) -> Recipe:
    extractor = "digits" if data.path == "digits" else extractor_for(data.shape)
    if base.diffusion.denoiser and extractor != "digits":
        extractor = "none"  # 35 evaluations for each sample are too dear for a model that nobody keeps
    return replace(
        base,
        name=f"{name}_{size_in_words(data.shape)}",
        batch_size=batch_size,
        averages=PowerEMA(),
        data=DataSettings(path=data.path),
        augmentation=NoAugmentation(),
        network=network,
        column=EDM(sigma_data=round(data.sigma_data, 4)),
        optimizer=RAdam(learning_rate=_RATE / getattr(network, "channels", 64), beta2=0.99, decay="linear"),
        checkpoint=CheckpointSettings(),
        evaluation=EvaluationSettings(
            extractor=extractor,
            samples=min(data.count, _SAMPLES),
            samplers=("heun:18",) if base.diffusion.denoiser else ("one-step", "multistep@2.0"),
        ),
        tracking=TrackingSettings(),
    )
