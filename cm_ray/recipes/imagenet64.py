"""ImageNet 64x64, by class."""

from __future__ import annotations

from dataclasses import replace

from cm_ray.core.averages import ConstantEMA
from cm_ray.core.methods import ConsistencyDistillation, ConsistencyTraining, Denoising, ModelSource
from cm_ray.core.proposals import Grid
from cm_ray.core.schedules import Adaptive, AdaptiveDecay, Constant, ConstantDecay
from cm_ray.networks.architectures import ADM
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.recipes.sections import (
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
