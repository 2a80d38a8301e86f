"""Score-based models: NCSN, NCSNv2 and the VE, VP and sub-VP SDEs, of CIFAR-10 and of 8x8 digits.

Noise levels are those of images in [-1, 1]: twice those of papers whose pixels are in [0, 1].
"""

from __future__ import annotations

from dataclasses import replace

from cm_ray.core.augmentation import Flip
from cm_ray.core.averages import ConstantEMA
from cm_ray.core.methods import Denoising
from cm_ray.core.noise_times import Geometric, LogUniform, SubVPTimes, VPTimes
from cm_ray.core.precondition import VE, VP
from cm_ray.core.score_columns import NCSN, SubVP
from cm_ray.core.times import NoiseLevels
from cm_ray.core.weights import SNR
from cm_ray.networks.architectures import DDPMpp, NCSNpp
from cm_ray.networks.score_networks import RefineNet
from cm_ray.recipes.cifar10 import edm_cifar10
from cm_ray.recipes.digits import edm_digits
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import Adam, TrackingSettings

_SDE_TIMES = NoiseLevels(t_min=0.001, t_max=152.0)
"""Noise levels of the VP SDE from u = 1e-5 to 1, which sub-VP has from 0.006 on."""


def ve_cifar10() -> Recipe:
    """The VE SDE with NCSN++ on CIFAR-10, in continuous time.  Song et al. 2021, appendix H.

    Sampled by a reverse diffusion predictor and a Langevin corrector, of signal-to-noise ratio 0.16.
    """
    base = edm_cifar10()
    return replace(
        base,
        name="ve_cifar10",
        method=Denoising(times=LogUniform(), weight=SNR()),
        steps=1_300_000,
        batch_size=128,
        averages=ConstantEMA(decays=(0.999,)),
        noise=NoiseLevels(t_min=0.02, t_max=100.0),
        augmentation=Flip(),
        column=VE(),
        network=NCSNpp(channel_mult=(1, 2, 2, 2), dropout=0.1),
        optimizer=Adam(learning_rate=2e-4, warmup_steps=5000, gradient_clip=1.0),
        evaluation=replace(base.evaluation, every=0, samplers=("pc:1000,snr=0.16",)),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-ve"),
    )


def vp_cifar10() -> Recipe:
    """The VP SDE with DDPM++ on CIFAR-10, in continuous time.  Song et al. 2021, appendix H."""
    base = ve_cifar10()
    return replace(
        base,
        name="vp_cifar10",
        method=Denoising(times=VPTimes(), weight=SNR()),
        averages=ConstantEMA(decays=(0.9999,)),
        noise=_SDE_TIMES,
        column=VP(),
        network=DDPMpp(channel_mult=(1, 2, 2, 2), dropout=0.1),
        evaluation=replace(
            base.evaluation, samplers=("pc:1000,sde=vp,predictor=euler-maruyama,corrections=0", "ode")
        ),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-vp"),
    )


def subvp_cifar10() -> Recipe:
    """The sub-VP SDE with DDPM++ on CIFAR-10, in continuous time.  Song et al. 2021, appendix H."""
    base = vp_cifar10()
    return replace(
        base,
        name="subvp_cifar10",
        method=Denoising(times=SubVPTimes(), weight=SNR()),
        column=SubVP(),
        evaluation=replace(
            base.evaluation, samplers=("pc:1000,sde=sub-vp,predictor=euler-maruyama,corrections=0", "ode")
        ),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-subvp"),
    )


def ncsnv2_cifar10() -> Recipe:
    """NCSNv2 on CIFAR-10, with its RefineNet.  Song & Ermon 2020, appendix B.

    232 levels from sigma 50 to 0.01, and Langevin steps of epsilon 6.2e-6, of pixels in [0, 1].
    """
    base = ve_cifar10()
    return replace(
        base,
        name="ncsnv2_cifar10",
        method=Denoising(times=Geometric(count=232), weight=SNR()),
        steps=300_000,
        network=RefineNet(),
        optimizer=Adam(learning_rate=1e-4),
        evaluation=replace(base.evaluation, samplers=("langevin:232,repeats=5,step_size=0.062",)),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-ncsnv2"),
    )


def ncsn_cifar10() -> Recipe:
    """NCSN on CIFAR-10, with its conditional RefineNet.  Song & Ermon 2019, section 5 and appendix B.

    10 levels from sigma 1 to 0.01, of pixels in [0, 1], and 100 Langevin steps of epsilon 2e-5 at each; no
    average of the weights.
    """
    base = ncsnv2_cifar10()
    return replace(
        base,
        name="ncsn_cifar10",
        method=Denoising(times=Geometric(count=10), weight=SNR()),
        steps=200_000,
        averages=ConstantEMA(decays=(0.0,)),
        noise=NoiseLevels(t_min=0.02, t_max=2.0),
        column=NCSN(),
        network=RefineNet(levels=10),
        optimizer=Adam(learning_rate=1e-3),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingSettings(model_name="cm_ray-cifar10-ncsn"),
    )


def ve_digits() -> Recipe:
    """The VE SDE on the 8x8 digits, in continuous time: two minutes on two CPU cores.

    The largest noise level is the largest distance of two digits, technique 1 of NCSNv2.
    """
    base = edm_digits()
    return replace(
        base,
        name="ve_digits",
        method=Denoising(times=LogUniform(), weight=SNR()),
        noise=NoiseLevels(t_min=0.02, t_max=9.63),
        column=VE(),
        evaluation=replace(base.evaluation, samplers=("pc:100",)),
        tracking=TrackingSettings(model_name="cm_ray-digits-ve"),
    )


def vp_digits() -> Recipe:
    """The VP SDE on the 8x8 digits, in continuous time: two minutes on two CPU cores."""
    base = ve_digits()
    return replace(
        base,
        name="vp_digits",
        method=Denoising(times=VPTimes(), weight=SNR()),
        noise=_SDE_TIMES,
        column=VP(),
        evaluation=replace(base.evaluation, samplers=("pc:100,sde=vp,predictor=ancestral,corrections=0",)),
        tracking=TrackingSettings(model_name="cm_ray-digits-vp"),
    )


def subvp_digits() -> Recipe:
    """The sub-VP SDE on the 8x8 digits, in continuous time: two minutes on two CPU cores."""
    base = vp_digits()
    return replace(
        base,
        name="subvp_digits",
        method=Denoising(times=SubVPTimes(), weight=SNR()),
        column=SubVP(),
        evaluation=replace(base.evaluation, samplers=("pc:100,sde=sub-vp,corrections=0",)),
        tracking=TrackingSettings(model_name="cm_ray-digits-subvp"),
    )


def ncsnv2_digits() -> Recipe:
    """NCSNv2's training and sampling on the 8x8 digits, by its techniques: two minutes on two CPU cores.

    22 levels from the largest distance of two digits, whose ratio has the overlap of a half (technique 2).
    """
    base = ve_digits()
    return replace(
        base,
        name="ncsnv2_digits",
        method=Denoising(times=Geometric(count=22), weight=SNR()),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingSettings(model_name="cm_ray-digits-ncsnv2"),
    )


def ncsn_digits() -> Recipe:
    """NCSN's training and sampling on the 8x8 digits: six minutes on two CPU cores, most of them for samples.

    The levels are those of CIFAR-10, and there is no average; `ncsnv2_digits` has NCSNv2's techniques.
    """
    base = ve_digits()
    return replace(
        base,
        name="ncsn_digits",
        method=Denoising(times=Geometric(count=10), weight=SNR()),
        averages=ConstantEMA(decays=(0.0,)),
        noise=NoiseLevels(t_min=0.02, t_max=2.0),
        column=NCSN(),
        evaluation=replace(base.evaluation, samplers=("own",)),
        tracking=TrackingSettings(model_name="cm_ray-digits-ncsn"),
    )
