"""scikit-learn's 1,797 real 8x8 digits, by class: minutes on two CPU cores. sigma_data is the data's own."""

from __future__ import annotations

from dataclasses import replace

from cm_ray.core.augmentation import NoAugmentation
from cm_ray.core.averages import ConstantEMA, PowerEMA
from cm_ray.core.continuous import SimplifiedDistillation, SimplifiedTraining
from cm_ray.core.distance import L2, PseudoHuber
from cm_ray.core.methods import (
    ConsistencyDistillation,
    ConsistencyTraining,
    Denoising,
    ModelSource,
    ProgressiveDistillation,
)
from cm_ray.core.precondition import EDM, Linear, TrigFlow
from cm_ray.core.proposals import Grid, LognormalIntervals
from cm_ray.core.schedules import Adaptive, AdaptiveDecay, Constant, ConstantDecay, Doubling, Halving
from cm_ray.core.shortcut import ShortcutTraining
from cm_ray.core.truncated import TruncatedTimes
from cm_ray.core.uncertainty import LearnedUncertainty
from cm_ray.core.weights import InverseGap
from cm_ray.networks.architectures import ADM, EDM2
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


def ict_digits() -> Recipe:
    """Improved consistency training: two to three minutes on two CPU cores.  Song & Dhariwal 2023.

    At the size of the data: N from 11 to 41. So few steps want an optimizer that warms up fast.
    """
    return Recipe(
        name="ict_digits",
        method=replace(ICT, times=Grid(scales=Doubling(s0=10, s1=40), proposal=LognormalIntervals())),
        steps=900,
        batch_size=128,
        averages=ConstantEMA(decays=(0.98,)),
        log_every=20,
        data=DataSettings(path="digits"),
        augmentation=NoAugmentation(),
        network=ADM(
            channels=32,
            channel_mult=(1, 2),
            blocks=1,
            attention_resolutions=(4,),
            head_channels=32,
            norm_groups=8,
            conditional=True,
        ),
        column=EDM(sigma_data=0.75),
        optimizer=RAdam(learning_rate=2e-3, beta2=0.99),
        checkpoint=CheckpointSettings(every=100),
        evaluation=EvaluationSettings(every=300, extractor="digits", samplers=("one-step", "multistep@2.0")),
        tracking=TrackingSettings(model_name="cm_ray-digits"),
    )


def ct_digits() -> Recipe:
    """Consistency training as in Song et al. 2023, with squared l2: adaptive N(k) and mu(k).

    So short a training wants few scales: with more the target is not there in time.
    """
    return replace(
        ict_digits(),
        name="ct_digits",
        method=ConsistencyTraining(
            times=Grid(scales=Adaptive(s0=2, s1=10)), distance=L2(), target=AdaptiveDecay(mu0=0.9)
        ),
        tracking=TrackingSettings(model_name="cm_ray-digits-ct"),
    )


def edm_digits() -> Recipe:
    """A diffusion model of the 8x8 digits, a teacher: two minutes on two CPU cores."""
    base = ict_digits()
    return replace(
        base,
        name="edm_digits",
        method=Denoising(),
        steps=1500,
        optimizer=RAdam(learning_rate=2e-3, beta2=0.99, decay="linear"),
        evaluation=replace(base.evaluation, every=0, samplers=("heun:18",)),
        tracking=TrackingSettings(model_name="cm_ray-digits-edm"),
    )


def edm2_digits() -> Recipe:
    """EDM2's diffusion model of the 8x8 digits: its network, loss and step sizes.  Karras et al. 2024."""
    base = edm_digits()
    return replace(
        base,
        name="edm2_digits",
        uncertainty=LearnedUncertainty(),
        averages=PowerEMA(snapshots=4),
        column=EDM(sigma_data=0.75, time_scale=1.0),
        network=EDM2(
            channels=32,
            channel_mult=(1, 2),
            blocks=1,
            attention_resolutions=(4,),
            head_channels=32,
            conditional=True,
        ),
        optimizer=Adam(learning_rate=1e-2, warmup_steps=50, inverse_sqrt_after=300, beta2=0.99),
        tracking=TrackingSettings(model_name="cm_ray-digits-edm2"),
    )


def cd_digits() -> Recipe:
    """Consistency distillation on the 8x8 digits: N = 18 and Heun as in the paper, iCT's loss."""
    return replace(
        ict_digits(),
        name="cd_digits",
        method=ConsistencyDistillation(
            times=Grid(scales=Constant(n=18)), distance=PseudoHuber(), weight=InverseGap()
        ),
        init_from=ModelSource(model=TEACHER),
        steps=1000,
        optimizer=RAdam(learning_rate=1e-3, beta2=0.99, decay="linear"),
        tracking=TrackingSettings(model_name="cm_ray-digits-cd"),
    )


def pd_digits() -> Recipe:
    """Progressive distillation on the 8x8 digits, from 32 steps of the teacher to one."""
    base = edm_digits()
    return replace(
        base,
        name="pd_digits",
        method=ProgressiveDistillation(rounds=Halving(s0=1, s1=16)),
        init_from=ModelSource(model=TEACHER),
        steps=1050,
        optimizer=RAdam(learning_rate=1e-3, beta2=0.99, decay="linear"),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingSettings(model_name="cm_ray-digits-pd"),
    )


def ect_digits() -> Recipe:
    """Easy consistency tuning of a diffusion model of the 8x8 digits (--init-from).  Geng et al. 2024."""
    return replace(
        ict_digits(),
        name="ect_digits",
        method=ECT,
        init_from=ModelSource(model=TEACHER),
        steps=600,
        optimizer=RAdam(learning_rate=1e-3, beta2=0.99, decay="linear"),
        tracking=TrackingSettings(model_name="cm_ray-digits-ect"),
    )


def tcm_digits() -> Recipe:
    """Truncated consistency model of the 8x8 digits, of a first stage (--teacher).  Lee et al. 2024.

    So short a training wants pairs that are not as close as in the paper.
    """
    return replace(
        ict_digits(),
        name="tcm_digits",
        method=replace(TCM, times=TruncatedTimes(ratio=0.95)),
        init_from=ModelSource(model=TEACHER),
        steps=600,
        optimizer=RAdam(learning_rate=1e-3, beta2=0.99, decay="linear"),
        tracking=TrackingSettings(model_name="cm_ray-digits-tcm"),
    )


def trigflow_digits() -> Recipe:
    """A diffusion model of the 8x8 digits under column trigflow, a teacher for sCD."""
    return replace(
        edm_digits(),
        name="trigflow_digits",
        column=TrigFlow(sigma_data=0.75),
        tracking=TrackingSettings(model_name="cm_ray-digits-trigflow"),
    )


def sct_digits() -> Recipe:
    """sCT on the 8x8 digits: consistency training in continuous time.  Lu & Song 2024."""
    return replace(
        ict_digits(),
        name="sct_digits",
        method=SimplifiedTraining(warmup=300),
        column=TrigFlow(sigma_data=0.75),
        tracking=TrackingSettings(model_name="cm_ray-digits-sct"),
    )


def scd_digits() -> Recipe:
    """sCD on the 8x8 digits: consistency distillation in continuous time.  Lu & Song 2024."""
    return replace(
        cd_digits(),
        name="scd_digits",
        method=SimplifiedDistillation(warmup=300),
        column=TrigFlow(sigma_data=0.75),
        tracking=TrackingSettings(model_name="cm_ray-digits-scd"),
    )


def meanflow_digits() -> Recipe:
    """MeanFlow on the 8x8 digits: a function of two times, without a teacher.  Geng et al. 2025."""
    base = ict_digits()
    return replace(
        base,
        name="meanflow_digits",
        method=MEANFLOW,
        column=Linear(),
        evaluation=replace(base.evaluation, samplers=("one-step", "jumps:2", "jumps:4", "jumps:8")),
        tracking=TrackingSettings(model_name="cm_ray-digits-meanflow"),
    )


def shortcut_digits() -> Recipe:
    """Shortcut model of the 8x8 digits: jumps that agree with their halves.  Frans et al. 2024.

    So short a training wants a target that is not far behind.
    """
    return replace(
        meanflow_digits(),
        name="shortcut_digits",
        method=ShortcutTraining(target=ConstantDecay(mu=0.95)),
        tracking=TrackingSettings(model_name="cm_ray-digits-shortcut"),
    )
