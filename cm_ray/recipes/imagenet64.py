"""ImageNet 64x64, by class."""

from __future__ import annotations

from dataclasses import replace

from cm_ray.recipes.config import (
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
from cm_ray.recipes.schedules import EDM


def edm_imagenet64() -> TrainConfig:
    """A diffusion model of ImageNet 64x64, a teacher.

    Song et al. 2023, appendix C: EDM's settings with half its batch.
    """
    base = ct_imagenet64()
    return replace(
        base,
        name="edm_imagenet64",
        method="edm",
        steps=600_000,
        network=replace(base.network, dropout=0.1),
        diffusion=DiffusionConfig(boundary="none"),
        schedule=EDM,
        distance=DistanceConfig(name="l2"),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        evaluation=replace(base.evaluation, samplers=("heun:40",)),
        tracking=TrackingConfig(model_name="cm_ray-imagenet64-edm"),
    )


def cd_imagenet64() -> TrainConfig:
    """Consistency distillation on ImageNet 64x64: the third column of table 3."""
    base = ct_imagenet64()
    return replace(
        base,
        name="cd_imagenet64",
        method="cd",
        init_from="teacher",
        steps=600_000,
        schedule=ScheduleConfig(scales="constant", s1=39, target="constant", mu0=0.95),
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@1.38")),
        tracking=TrackingConfig(model_name="cm_ray-imagenet64-cd"),
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
        evaluation=EvaluationConfig(every=10_000, samplers=("one-step", "multistep@1.91")),
        tracking=TrackingConfig(model_name="cm_ray-imagenet64"),
    )
