"""scikit-learn's 1,797 real 8x8 digits, by class: minutes on two CPU cores. sigma_data is the data's own."""

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
from cm_ray.recipes.schedules import ECT, EDM, ICT, STUDENT_IS_TARGET


def ict_digits() -> TrainConfig:
    """Improved consistency training: two to three minutes on two CPU cores.  Song & Dhariwal 2023.

    At the size of the data: N from 11 to 41. So few steps want an optimizer that warms up fast.
    """
    return TrainConfig(
        name="ict_digits",
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
        schedule=replace(ICT, s1=40),
        distance=DistanceConfig(name="pseudo-huber"),
        optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.99),
        checkpoint=CheckpointConfig(every=100),
        evaluation=EvaluationConfig(every=300, extractor="digits", samplers=("one-step", "multistep@2.0")),
        tracking=TrackingConfig(model_name="cm_ray-digits"),
    )


def ct_digits() -> TrainConfig:
    """Consistency training as in Song et al. 2023, with squared l2: adaptive N(k) and mu(k).

    So short a training wants few scales: with more the target is not there in time.
    """
    base = ict_digits()
    return replace(
        base,
        name="ct_digits",
        schedule=ScheduleConfig(s0=2, s1=10, mu0=0.9),
        distance=DistanceConfig(name="l2"),
        tracking=TrackingConfig(model_name="cm_ray-digits-ct"),
    )


def edm_digits() -> TrainConfig:
    """A diffusion model of the 8x8 digits, a teacher: two minutes on two CPU cores."""
    base = ict_digits()
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
    base = ict_digits()
    return replace(
        base,
        name="cd_digits",
        method="cd",
        init_from="teacher",
        steps=1000,
        schedule=replace(STUDENT_IS_TARGET, s1=17, weight="inverse-gap"),
        optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, decay="linear"),
        tracking=TrackingConfig(model_name="cm_ray-digits-cd"),
    )


def pd_digits() -> TrainConfig:
    """Progressive distillation on the 8x8 digits, from 32 steps of the teacher to one."""
    base = edm_digits()
    return replace(
        base,
        name="pd_digits",
        method="pd",
        init_from="teacher",
        steps=1050,
        schedule=replace(STUDENT_IS_TARGET, scales="halving", s0=1, s1=16, weight="truncated-snr"),
        optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, decay="linear"),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingConfig(model_name="cm_ray-digits-pd"),
    )


def ect_digits() -> TrainConfig:
    """Easy consistency tuning of a teacher of the 8x8 digits.  Geng et al. 2024."""
    base = ict_digits()
    return replace(
        base,
        name="ect_digits",
        init_from="teacher",
        steps=600,
        schedule=ECT,
        distance=DistanceConfig(name="norm"),
        optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.99, decay="linear"),
        tracking=TrackingConfig(model_name="cm_ray-digits-ect"),
    )
