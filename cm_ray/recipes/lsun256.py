"""LSUN Bedroom or Cat 256x256."""

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


def edm_lsun256() -> TrainConfig:
    """A diffusion model of LSUN Bedroom or Cat 256x256, a teacher.  OpenAI's settings."""
    base = ct_lsun256()
    return replace(
        base,
        name="edm_lsun256",
        method="edm",
        steps=300_000,
        batch_size=256,
        network=replace(base.network, dropout=0.1),
        diffusion=DiffusionConfig(boundary="none"),
        schedule=EDM,
        distance=DistanceConfig(name="l2"),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        evaluation=replace(base.evaluation, samplers=("heun:40",)),
        tracking=TrackingConfig(model_name="cm_ray-lsun256-edm"),
    )


def cd_lsun256() -> TrainConfig:
    """Consistency distillation on LSUN Bedroom or Cat 256x256: the fifth column of table 3."""
    base = ct_lsun256()
    return replace(
        base,
        name="cd_lsun256",
        method="cd",
        init_from="teacher",
        steps=600_000,
        schedule=ScheduleConfig(scales="constant", s1=39, target="constant", mu0=0.95),
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@4.37")),
        tracking=TrackingConfig(model_name="cm_ray-lsun256-cd"),
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
        evaluation=EvaluationConfig(every=10_000, samplers=("one-step", "multistep@3.99")),
        tracking=TrackingConfig(model_name="cm_ray-lsun256"),
    )
