"""scikit-learn's 1,797 real 8x8 digits, by class: minutes on two CPU cores. sigma_data is the data's own."""

from __future__ import annotations

from dataclasses import replace

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
from cm_ray.presets.schedules import EDM, STUDENT_IS_TARGET


def edm_digits() -> TrainConfig:
    """A diffusion model of the 8x8 digits, a teacher: two minutes on two CPU cores."""
    base = ct_digits()
    return replace(
        base,
        name="edm_digits",
        method="edm",
        steps=1500,
        diffusion=replace(base.diffusion, boundary="none"),
        schedule=EDM,
        distance=DistanceConfig(name="l2"),
        optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.99, decay="linear"),
        evaluation=replace(base.evaluation, every=0, samplers=("heun:18",)),
        tracking=TrackingConfig(model_name="cm_ray-digits-edm"),
    )


def cd_digits() -> TrainConfig:
    """Consistency distillation on the 8x8 digits: N = 18 and Heun as in the paper, iCT's loss."""
    base = ct_digits()
    return replace(
        base,
        name="cd_digits",
        method="cd",
        init_from="teacher",
        steps=900,
        schedule=replace(STUDENT_IS_TARGET, s1=17, weight="inverse-gap"),
        optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, decay="linear"),
        tracking=TrackingConfig(model_name="cm_ray-digits-cd"),
    )


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
        evaluation=EvaluationConfig(every=300, extractor="digits", samplers=("one-step", "multistep@2.0")),
        tracking=TrackingConfig(model_name="cm_ray-digits"),
    )


def pd_digits() -> TrainConfig:
    """Progressive distillation on the 8x8 digits, from 32 steps of the teacher to one."""
    base = edm_digits()
    return replace(
        base,
        name="pd_digits",
        method="pd",
        init_from="teacher",
        steps=1400,
        schedule=replace(STUDENT_IS_TARGET, scales="halving", s0=1, s1=16, weight="truncated-snr"),
        optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, decay="linear"),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingConfig(model_name="cm_ray-digits-pd"),
    )
