"""CIFAR-10. The network is NCSN++ in EDM's setting, which sees ln(t)/4."""

from __future__ import annotations

from dataclasses import replace

from cm_ray.core.augmentation import EDMAugmentation, Flip
from cm_ray.core.averages import ConstantEMA
from cm_ray.core.continuous import SimplifiedDistillation, SimplifiedTraining
from cm_ray.core.methods import (
    ConsistencyDistillation,
    ConsistencyTraining,
    Denoising,
    ModelSource,
    ProgressiveDistillation,
)
from cm_ray.core.precondition import EDM, Linear, TrigFlow
from cm_ray.core.proposals import Grid
from cm_ray.core.schedules import Adaptive, AdaptiveDecay, Constant, Halving
from cm_ray.networks.architectures import DDPMpp, NCSNpp
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.recipes.methods import ECT, ICT, MEANFLOW, TCM
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.recipes.sections import (
    Adam,
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    RAdam,
    TrackingSettings,
)


def edm_cifar10() -> Recipe:
    """A diffusion model of CIFAR-10, a teacher.  Karras et al. 2022, table 7."""
    base = ct_cifar10()
    return replace(
        base,
        name="edm_cifar10",
        method=Denoising(),
        steps=390_625,
        averages=ConstantEMA(decays=(0.99929,)),  # half of the weight is on the last 0.5 million images
        network=NCSNpp(dropout=0.13),
        augmentation=EDMAugmentation(),
        optimizer=Adam(learning_rate=1e-3, warmup_steps=19_531),
        evaluation=replace(base.evaluation, samplers=("heun:18",)),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-edm"),
    )


def cd_cifar10() -> Recipe:
    """Consistency distillation on CIFAR-10: the first column of table 3."""
    base = ct_cifar10()
    return replace(
        base,
        name="cd_cifar10",
        method=ConsistencyDistillation(times=Grid(scales=Constant(n=18)), distance=LPIPS()),
        init_from=ModelSource(model=TEACHER),
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@0.585")),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-cd"),
    )


def ct_cifar10() -> Recipe:
    """Consistency training on CIFAR-10: the second column of table 3."""
    return Recipe(
        name="ct_cifar10",
        method=ConsistencyTraining(
            times=Grid(scales=Adaptive(s0=2, s1=150)), distance=LPIPS(), target=AdaptiveDecay(mu0=0.9)
        ),
        averages=ConstantEMA(decays=(0.9999,)),
        data=DataSettings(path="cifar10"),
        network=NCSNpp(),
        column=EDM(time_scale=1.0),
        checkpoint=CheckpointSettings(every=10_000),
        evaluation=EvaluationSettings(every=10_000, extractor="inception-2015"),
        tracking=TrackingSettings(model_name="cm_ray-cifar10"),
    )


def pd_cifar10() -> Recipe:
    """Progressive distillation on CIFAR-10, from 1024 steps of the teacher to one.  Salimans & Ho 2022.

    50,000 training steps a round and 100,000 for the last two, step size falling to zero in each, squared
    l2 with the truncated SNR weight. Song et al. 2023 find --distance lpips better.
    """
    base = ct_cifar10()
    return replace(
        base,
        name="pd_cifar10",
        method=ProgressiveDistillation(rounds=Halving(s0=1, s1=512)),
        init_from=ModelSource(model=TEACHER),
        steps=600_000,
        batch_size=128,
        optimizer=Adam(learning_rate=1e-4, decay="linear"),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-pd"),
    )


def ict_cifar10() -> Recipe:
    """Improved consistency training on CIFAR-10.  Song & Dhariwal 2023."""
    return replace(
        ct_cifar10(),
        name="ict_cifar10",
        method=ICT,
        steps=400_000,
        batch_size=1024,
        averages=ConstantEMA(decays=(0.99993,)),
        network=NCSNpp(dropout=0.3, fourier_scale=0.02),
        optimizer=RAdam(learning_rate=1e-4),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-ict"),
    )


def ect_cifar10() -> Recipe:
    """Easy consistency tuning on CIFAR-10: a diffusion model's weights, tuned.  Geng et al. 2024.

    They tune EDM's DDPM++: --network ddpm++ --init-from edm-cifar10-32x32-uncond-vp.pt.
    """
    return replace(
        ct_cifar10(),
        name="ect_cifar10",
        method=ECT,
        init_from=ModelSource(model=TEACHER),
        steps=400_000,
        batch_size=128,
        network=NCSNpp(dropout=0.2),
        optimizer=RAdam(learning_rate=1e-4),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-ect"),
    )


def tcm_cifar10() -> Recipe:
    """Truncated consistency model of CIFAR-10, of the weights of a first stage (--teacher).  Lee et al. 2024.

    Their first stage is ECT of EDM's DDPM++ at batch 512; the number of steps is a choice of ours.
    """
    base = ect_cifar10()
    return replace(
        base,
        name="tcm_cifar10",
        method=TCM,
        batch_size=1024,
        network=DDPMpp(dropout=0.2),
        optimizer=RAdam(learning_rate=5e-5),
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@1.5")),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-tcm"),
    )


def trigflow_cifar10() -> Recipe:
    """A diffusion model of CIFAR-10 under column trigflow, a teacher for sCD.  Lu & Song 2024, appendix G.

    Without their augmentation.
    """
    base = edm_cifar10()
    return replace(
        base,
        name="trigflow_cifar10",
        steps=400_000,
        network=DDPMpp(dropout=0.13),
        augmentation=Flip(),
        column=TrigFlow(),
        optimizer=Adam(learning_rate=1e-3, warmup_steps=19_531),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-trigflow"),
    )


def sct_cifar10() -> Recipe:
    """sCT on CIFAR-10: consistency training in continuous time.  Lu & Song 2024, appendix G."""
    base = ct_cifar10()
    return replace(
        base,
        name="sct_cifar10",
        method=SimplifiedTraining(),
        steps=400_000,
        averages=ConstantEMA(decays=(0.99929,)),  # half of the weight is on the last 0.5 million images
        network=DDPMpp(dropout=0.2),
        column=TrigFlow(),
        optimizer=RAdam(learning_rate=1e-4, beta2=0.99),
        evaluation=replace(base.evaluation, samplers=("one-step", "multistep@0.98")),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-sct"),
    )


def scd_cifar10() -> Recipe:
    """sCD on CIFAR-10: distillation of `trigflow_cifar10` in continuous time.  Lu & Song 2024, appendix G."""
    return replace(
        sct_cifar10(),
        name="scd_cifar10",
        method=SimplifiedDistillation(),
        init_from=ModelSource(model=TEACHER),
        network=DDPMpp(),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-scd"),
    )


def meanflow_cifar10() -> Recipe:
    """MeanFlow on CIFAR-10: a function of two times, without a teacher.  Geng et al. 2025, appendix A.

    Their augmentation is EDM's without vertical flips and rotations.
    """
    base = ct_cifar10()
    return replace(
        base,
        name="meanflow_cifar10",
        method=MEANFLOW,
        batch_size=1024,
        averages=ConstantEMA(decays=(0.99995, 0.9999, 0.9996)),
        network=DDPMpp(dropout=0.2),
        augmentation=EDMAugmentation(vertical_flip=False, rotation=False),
        column=Linear(),
        optimizer=Adam(learning_rate=6e-4, warmup_steps=9766),  # 200 epochs
        evaluation=replace(base.evaluation, samplers=("one-step", "jumps:2")),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-meanflow"),
    )
