"""LSUN Bedroom or Cat 256x256."""

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
    channels=256,
    channel_mult=(1, 1, 2, 2, 4, 4),
    blocks=2,
    attention_resolutions=(32, 16, 8),
    scale_shift=False,
    gradient_checkpointing=True,
)


def edm_lsun256() -> Recipe:
    """A diffusion model of LSUN Bedroom or Cat 256x256, a teacher.  OpenAI's settings."""
    base = ct_lsun256()
    return replace(
        base,
        name="edm_lsun256",
        method=Denoising(),
        steps=300_000,
        batch_size=256,
        network=replace(_NETWORK, dropout=0.1),
        optimizer=RAdam(learning_rate=1e-4),
        evaluation=replace(base.evaluation, samplers=("heun:40",)),
        tracking=TrackingSettings(model_name="cm_ray-lsun256-edm"),
    )


def cd_lsun256() -> Recipe:
    """Consistency distillation on LSUN Bedroom or Cat 256x256: the fifth column of table 3."""
    base = ct_lsun256()
    return replace(
        base,
        name="cd_lsun256",
        method=ConsistencyDistillation(
            times=Grid(scales=Constant(n=40)),
            distance=LPIPS(pooling="average"),
            target=ConstantDecay(mu=0.95),
        ),
        init_from=ModelSource(model=TEACHER),
        steps=600_000,
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@4.37")),
        tracking=TrackingSettings(model_name="cm_ray-lsun256-cd"),
    )


def ct_lsun256() -> Recipe:
    """Consistency training on LSUN Bedroom or Cat 256x256: the sixth column of table 3."""
    return Recipe(
        name="ct_lsun256",
        method=ConsistencyTraining(
            times=Grid(scales=Adaptive(s0=2, s1=150)),
            distance=LPIPS(pooling="average"),
            target=AdaptiveDecay(mu0=0.95),
        ),
        steps=1_000_000,
        batch_size=2048,
        precision="float16",
        averages=ConstantEMA(decays=(0.999943,)),
        data=DataSettings(size=256),
        network=_NETWORK,
        optimizer=RAdam(learning_rate=1e-5),
        checkpoint=CheckpointSettings(every=10_000),
        evaluation=EvaluationSettings(every=10_000, samplers=("one-step", "multistep@3.99")),
        tracking=TrackingSettings(model_name="cm_ray-lsun256"),
    )
