"""Recipes: each a function that returns a complete config.  Figures: Song et al. 2023, table 3."""

from __future__ import annotations

from collections.abc import Callable

from cm_ray.config import (
    CheckpointConfig,
    DataConfig,
    DiffusionConfig,
    DistanceConfig,
    EvaluationConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrackingConfig,
    TrainConfig,
)
from cm_ray.errors import UserError, closest


def ct_digits() -> TrainConfig:
    """Consistency training on scikit-learn's 8x8 digits, by class: two to three minutes on two CPU cores.

    The method's settings are those of iCT (Song & Dhariwal 2023), at the size of the data; sigma_data is
    the data's own. So few steps want an optimizer that warms up fast.
    """
    return TrainConfig(
        name="ct_digits",
        steps=900,
        batch_size=128,
        ema_decays=(0.98,),
        log_every=20,
        data=DataConfig(path="digits", horizontal_flip=False),
        network=NetworkConfig(
            channels=32,
            channel_mult=(1, 2),
            blocks=1,
            attention_resolutions=(4,),
            head_channels=32,
            norm_groups=8,
            conditional=True,
        ),
        diffusion=DiffusionConfig(sigma_data=0.75),
        schedule=ScheduleConfig(
            scales="doubling",
            s0=10,
            s1=40,
            target="constant",
            mu0=0.0,
            proposal="lognormal",
            weight="inverse-gap",
        ),
        distance=DistanceConfig(name="pseudo-huber"),
        optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.99),
        checkpoint=CheckpointConfig(every=100),
        evaluation=EvaluationConfig(every=300, extractor="digits", taus=(2.0,)),
        tracking=TrackingConfig(model_name="cm_ray-digits"),
    )


def ct_cifar10() -> TrainConfig:
    """Consistency training on CIFAR-10: the second column of table 3."""
    return TrainConfig(
        name="ct_cifar10",
        data=DataConfig(path="cifar10"),
        checkpoint=CheckpointConfig(every=10_000),
        evaluation=EvaluationConfig(every=10_000),
        tracking=TrackingConfig(model_name="cm_ray-cifar10"),
    )


def ct_imagenet64() -> TrainConfig:
    """Consistency training on ImageNet 64x64: the fourth column of table 3."""
    return TrainConfig(
        name="ct_imagenet64",
        steps=800_000,
        batch_size=2048,
        precision="float16",
        ema_decays=(0.999943,),
        data=DataConfig(size=64),
        network=NetworkConfig(
            channels=192,
            channel_mult=(1, 2, 3, 4),
            blocks=3,
            attention_resolutions=(32, 16, 8),
            conditional=True,
        ),
        schedule=ScheduleConfig(s1=200, mu0=0.95),
        optimizer=OptimizerConfig(learning_rate=8e-6),
        checkpoint=CheckpointConfig(every=10_000),
        evaluation=EvaluationConfig(every=10_000, taus=(1.91,)),
        tracking=TrackingConfig(model_name="cm_ray-imagenet64"),
    )


def ct_lsun256() -> TrainConfig:
    """Consistency training on LSUN Bedroom or Cat 256x256: the sixth column of table 3."""
    return TrainConfig(
        name="ct_lsun256",
        steps=1_000_000,
        batch_size=2048,
        precision="float16",
        ema_decays=(0.999943,),
        data=DataConfig(size=256),
        network=NetworkConfig(
            channels=256,
            channel_mult=(1, 1, 2, 2, 4, 4),
            blocks=2,
            attention_resolutions=(32, 16, 8),
            scale_shift=False,
            gradient_checkpointing=True,
        ),
        schedule=ScheduleConfig(s1=150, mu0=0.95),
        optimizer=OptimizerConfig(learning_rate=1e-5),
        checkpoint=CheckpointConfig(every=10_000),
        evaluation=EvaluationConfig(every=10_000, taus=(3.99,)),
        tracking=TrackingConfig(model_name="cm_ray-lsun256"),
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe for recipe in (ct_digits, ct_cifar10, ct_imagenet64, ct_lsun256)
}
"""Every recipe by name."""


def preset(name: str) -> TrainConfig:
    """Return the recipe called `name`. Raises UserError on an unknown one, with the nearest known."""
    if name not in PRESETS:
        raise UserError(f"There is no preset {name!r}: {closest(name, list(PRESETS))}")
    return PRESETS[name]()
