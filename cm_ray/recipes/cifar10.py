"""CIFAR-10. The network is NCSN++ in EDM's setting, which sees ln(t)/4."""

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
    TrackingConfig,
    TrainConfig,
)
from cm_ray.recipes.schedules import ECT, EDM, ICT, STUDENT_IS_TARGET

_NCSNPP = NetworkConfig(family="ncsn++", head_channels=0, scale_shift=False)


def edm_cifar10() -> TrainConfig:
    """A diffusion model of CIFAR-10, a teacher.  Karras et al. 2022, table 7, but for their augmentation."""
    base = ct_cifar10()
    return replace(
        base,
        name="edm_cifar10",
        method="edm",
        steps=390_625,
        ema_decays=(0.99929,),  # half of the memory is the last 0.5 million images
        network=replace(base.network, dropout=0.13),
        diffusion=replace(base.diffusion, boundary="none"),
        schedule=EDM,
        distance=DistanceConfig(name="l2"),
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3, warmup_steps=19_531),
        evaluation=replace(base.evaluation, samplers=("heun:18",)),
        tracking=TrackingConfig(model_name="cm_ray-cifar10-edm"),
    )


def cd_cifar10() -> TrainConfig:
    """Consistency distillation on CIFAR-10: the first column of table 3."""
    base = ct_cifar10()
    return replace(
        base,
        name="cd_cifar10",
        method="cd",
        init_from="teacher",
        schedule=replace(STUDENT_IS_TARGET, s1=17),
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@0.585")),
        tracking=TrackingConfig(model_name="cm_ray-cifar10-cd"),
    )


def ct_cifar10() -> TrainConfig:
    """Consistency training on CIFAR-10: the second column of table 3."""
    return TrainConfig(
        name="ct_cifar10",
        data=DataConfig(path="cifar10"),
        network=_NCSNPP,
        diffusion=DiffusionConfig(time_scale=1.0),
        checkpoint=CheckpointConfig(every=10_000),
        evaluation=EvaluationConfig(every=10_000, extractor="inception-2015"),
        tracking=TrackingConfig(model_name="cm_ray-cifar10"),
    )


def pd_cifar10() -> TrainConfig:
    """Progressive distillation on CIFAR-10, from 1024 steps of the teacher to one.  Salimans & Ho 2022.

    50,000 training steps a round and 100,000 for the last two, step size falling to zero in each, squared
    l2 with the truncated SNR weight. Song et al. 2023 find --distance.name lpips better.
    """
    base = ct_cifar10()
    return replace(
        base,
        name="pd_cifar10",
        method="pd",
        init_from="teacher",
        steps=600_000,
        batch_size=128,
        diffusion=replace(base.diffusion, boundary="none"),
        schedule=replace(STUDENT_IS_TARGET, scales="halving", s0=1, s1=512, weight="truncated-snr"),
        distance=DistanceConfig(name="l2"),
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-4, decay="linear"),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingConfig(model_name="cm_ray-cifar10-pd"),
    )


def ict_cifar10() -> TrainConfig:
    """Improved consistency training on CIFAR-10.  Song & Dhariwal 2023."""
    base = ct_cifar10()
    return replace(
        base,
        name="ict_cifar10",
        steps=400_000,
        batch_size=1024,
        ema_decays=(0.99993,),
        network=replace(base.network, dropout=0.3, fourier_scale=0.02),
        schedule=ICT,
        distance=DistanceConfig(name="pseudo-huber"),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        tracking=TrackingConfig(model_name="cm_ray-cifar10-ict"),
    )


def ect_cifar10() -> TrainConfig:
    """Easy consistency tuning on CIFAR-10: a teacher's weights, tuned.  Geng et al. 2024.

    They tune EDM's DDPM++: --network.family ddpm++ --teacher edm-cifar10-32x32-uncond-vp.pt.
    """
    base = ct_cifar10()
    return replace(
        base,
        name="ect_cifar10",
        init_from="teacher",
        steps=400_000,
        batch_size=128,
        network=replace(base.network, dropout=0.2),
        schedule=ECT,
        distance=DistanceConfig(name="norm"),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        tracking=TrackingConfig(model_name="cm_ray-cifar10-ect"),
    )
