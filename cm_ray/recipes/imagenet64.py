"""ImageNet 64x64, by class."""

from __future__ import annotations

from dataclasses import replace

from cm_ray.core.augmentation import NoAugmentation
from cm_ray.core.averages import ConstantEMA, PowerEMA
from cm_ray.core.methods import ConsistencyDistillation, ConsistencyTraining, Denoising, ModelSource
from cm_ray.core.precondition import EDM
from cm_ray.core.proposals import Grid, Lognormal
from cm_ray.core.schedules import Adaptive, AdaptiveDecay, Constant, ConstantDecay
from cm_ray.core.uncertainty import LearnedUncertainty
from cm_ray.networks.architectures import ADM, EDM2
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.recipes.sections import (
    Adam,
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    RAdam,
    TrackingSettings,
)

_NETWORK = ADM(
    channels=192,
    channel_mult=(1, 2, 3, 4),
    blocks=3,
    attention_resolutions=(32, 16, 8),
    conditional=True,
)


def edm_imagenet64() -> Recipe:
    """A diffusion model of ImageNet 64x64, a teacher.

    Song et al. 2023, appendix C: EDM's settings with half its batch.
    """
    base = ct_imagenet64()
    return replace(
        base,
        name="edm_imagenet64",
        method=Denoising(),
        steps=600_000,
        network=replace(_NETWORK, dropout=0.1),
        optimizer=RAdam(learning_rate=1e-4),
        evaluation=replace(base.evaluation, samplers=("heun:40",)),
        tracking=TrackingSettings(model_name="cm_ray-imagenet64-edm"),
    )


def edm2_imagenet64() -> Recipe:
    """EDM2-S on ImageNet 64x64, a diffusion model with its published settings.  Karras et al. 2024, table 6.

    2^30 images, drawn without mirroring; its step sizes fall after 35,000 steps, of which 4883 are 10 million
    images. The averages of any length are made of snapshots.
    """
    return Recipe(
        name="edm2_imagenet64",
        method=Denoising(times=Lognormal(mean=-0.8, std=1.6)),
        uncertainty=LearnedUncertainty(),
        steps=2**19,
        batch_size=2048,
        precision="float16",
        averages=PowerEMA(lengths=(0.05, 0.1), snapshots=32),
        column=EDM(sigma_data=0.5, time_scale=1.0),
        augmentation=NoAugmentation(),
        data=DataSettings(size=64),
        network=EDM2(conditional=True),
        optimizer=_edm2_optimizer(1e-2),
        checkpoint=CheckpointSettings(every=10_000),
        evaluation=EvaluationSettings(samplers=("heun:32",), labels="balanced"),
        tracking=TrackingSettings(model_name="cm_ray-imagenet64-edm2"),
    )


def edm2_m_imagenet64() -> Recipe:
    """EDM2-M on ImageNet 64x64; see `edm2_imagenet64`."""
    return _larger("m", 256, 9e-3, 2**20)


def edm2_l_imagenet64() -> Recipe:
    """EDM2-L on ImageNet 64x64; see `edm2_imagenet64`."""
    return _larger("l", 320, 8e-3, 2**19)


def edm2_xl_imagenet64() -> Recipe:
    """EDM2-XL on ImageNet 64x64; see `edm2_imagenet64`."""
    return _larger("xl", 384, 7e-3, 5 * 2**16)


def _edm2_optimizer(learning_rate: float) -> Adam:
    return Adam(learning_rate=learning_rate, warmup_steps=4882, inverse_sqrt_after=35_000, beta2=0.99)


def _larger(size: str, channels: int, learning_rate: float, steps: int) -> Recipe:
    """Return the recipe of a larger network, which has dropout."""
    base = edm2_imagenet64()
    return replace(
        base,
        name=f"edm2_{size}_imagenet64",
        steps=steps,
        network=EDM2(channels=channels, dropout=0.1, conditional=True),
        optimizer=_edm2_optimizer(learning_rate),
        tracking=TrackingSettings(model_name=f"cm_ray-imagenet64-edm2-{size}"),
    )


def cd_imagenet64() -> Recipe:
    """Consistency distillation on ImageNet 64x64: the third column of table 3."""
    base = ct_imagenet64()
    return replace(
        base,
        name="cd_imagenet64",
        method=ConsistencyDistillation(
            times=Grid(scales=Constant(n=40)),
            distance=LPIPS(pooling="average"),
            target=ConstantDecay(mu=0.95),
        ),
        init_from=ModelSource(model=TEACHER),
        steps=600_000,
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@1.38")),
        tracking=TrackingSettings(model_name="cm_ray-imagenet64-cd"),
    )


def ct_imagenet64() -> Recipe:
    """Consistency training on ImageNet 64x64: the fourth column of table 3."""
    return Recipe(
        name="ct_imagenet64",
        method=ConsistencyTraining(
            times=Grid(scales=Adaptive(s0=2, s1=200)),
            distance=LPIPS(pooling="average"),
            target=AdaptiveDecay(mu0=0.95),
        ),
        steps=800_000,
        batch_size=2048,
        precision="float16",
        averages=ConstantEMA(decays=(0.999943,)),
        data=DataSettings(size=64),
        network=_NETWORK,
        optimizer=RAdam(learning_rate=8e-6),
        checkpoint=CheckpointSettings(every=10_000),
        evaluation=EvaluationSettings(
            every=10_000,
            samplers=("one-step", "multistep@1.91"),
            labels="balanced",  # as in the paper, though the classes are not equally frequent
        ),
        tracking=TrackingSettings(model_name="cm_ray-imagenet64"),
    )
