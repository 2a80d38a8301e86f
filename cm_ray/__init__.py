"""cm_ray: train, tune and use consistency models on one machine or a Ray cluster.

``import cm_ray as cm``: the names below are imported when they are first used, so that importing cm_ray
itself imports neither PyTorch nor Ray, MLflow or matplotlib.

====================================  ====================================================================
train, Trainer, Recipe, recipes       training of a recipe: in a line, as a loop; recipes by name
load, TrainedModel, Run, Samples      a model or a run from wherever it is; its samples
score                                 scores of a model or of images against a data set
load_images, ImageSet, survey         images in any form, and what is understood of them
Consistency, Denoiser, sample         a network of your own as f or D, and sampling from it
methods, times, distances ...         the dataclasses that are both the mathematics and the settings
cluster                               the same on Ray: cluster.training, cluster.sweeps
====================================  ====================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cm_ray.version import __version__ as __version__

_ROOMS = ("recipes", "cluster")
_NAMES = {
    "cm_ray.api.classifiers": ("train_classifier",),
    "cm_ray.api.load": ("load",),
    "cm_ray.api.run": ("Run",),
    "cm_ray.api.score": ("score",),
    "cm_ray.api.train": ("train",),
    "cm_ray.api.trained_model": ("TrainedModel",),
    "cm_ray.core.averages": ("ConstantEMA", "PowerEMA", "WarmUpEMA"),
    "cm_ray.core.continuous": (
        "ContinuousDistillation",
        "ContinuousTraining",
        "SimplifiedDistillation",
        "SimplifiedTraining",
    ),
    "cm_ray.core.diffusion": ("Diffusion",),
    "cm_ray.core.distance": ("L1", "L2", "AdaptiveL2", "Norm", "PseudoHuber"),
    "cm_ray.core.guidance": ("DrawnGuidance", "FixedGuidance", "Unguided"),
    "cm_ray.core.methods": (
        "ConsistencyDistillation",
        "ConsistencyTraining",
        "Denoising",
        "ModelSource",
        "ProgressiveDistillation",
    ),
    "cm_ray.core.augmentation": ("EDMAugmentation", "Flip", "NoAugmentation"),
    "cm_ray.core.noise_times": ("Geometric", "LogUniform", "SubVPTimes", "VPTimes"),
    "cm_ray.core.precondition": ("EDM", "VE", "VP", "Linear", "TrigFlow"),
    "cm_ray.core.proposals": ("Grid", "Lognormal", "LognormalIntervals", "Tuned", "UniformIntervals"),
    "cm_ray.core.score_columns": ("NCSN", "SubVP"),
    "cm_ray.core.shortcut": ("DyadicTimes", "ShortcutTraining"),
    "cm_ray.core.sliced": ("SlicedScoreMatching",),
    "cm_ray.core.truncated": ("TruncatedTimes", "TruncatedTraining"),
    "cm_ray.core.two_times": ("MeanFlow", "SortedTimes"),
    "cm_ray.sampling.samplers": (
        "DPM2",
        "Ancestral",
        "Euler",
        "Heun",
        "Jumps",
        "Multistep",
        "OneStep",
        "Progressive",
        "sample",
    ),
    "cm_ray.sampling.score_samplers": ("AdaptiveODE", "Langevin", "PredictorCorrector"),
    "cm_ray.core.schedules": (
        "Adaptive",
        "AdaptiveDecay",
        "Constant",
        "ConstantDecay",
        "Doubling",
        "Halving",
    ),
    "cm_ray.core.times": ("NoiseLevels",),
    "cm_ray.core.weights": (
        "SNR",
        "InverseGap",
        "KarrasWeight",
        "SNRPlusOne",
        "TruncatedSNR",
        "UniformWeight",
    ),
    "cm_ray.data.image_set": ("ImageSet",),
    "cm_ray.data.load_images": ("load_images",),
    "cm_ray.data.survey": ("Survey",),
    "cm_ray.data.take_survey": ("survey",),
    "cm_ray.errors": ("SettingError", "UserError"),
    "cm_ray.metrics.score": ("Score",),
    "cm_ray.networks.architectures": ("ADM", "EDM2", "DDPMpp", "NCSNpp"),
    "cm_ray.networks.custom": ("Custom",),
    "cm_ray.networks.lpips_distance": ("LPIPS",),
    "cm_ray.networks.score_networks": ("RefineNet",),
    "cm_ray.networks.preconditioned": ("Consistency", "Denoiser", "TwoTimes"),
    "cm_ray.recipes.recipe": ("Recipe",),
    "cm_ray.drawing.samples": ("Samples",),
    "cm_ray.settings.tree": ("override",),
    "cm_ray.training.trainer": ("TrainedStep", "Trainer"),
}
_PLACES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_ROOMS, *sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used. Raises AttributeError on a name that there is not."""
    if name in _ROOMS:
        return importlib.import_module(f"cm_ray.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'cm_ray' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from cm_ray import cluster as cluster
    from cm_ray import recipes as recipes
    from cm_ray.api.classifiers import train_classifier as train_classifier
    from cm_ray.api.load import load as load
    from cm_ray.api.run import Run as Run
    from cm_ray.api.score import score as score
    from cm_ray.api.train import train as train
    from cm_ray.api.trained_model import TrainedModel as TrainedModel
    from cm_ray.core.augmentation import EDMAugmentation as EDMAugmentation
    from cm_ray.core.augmentation import Flip as Flip
    from cm_ray.core.augmentation import NoAugmentation as NoAugmentation
    from cm_ray.core.averages import ConstantEMA as ConstantEMA
    from cm_ray.core.averages import PowerEMA as PowerEMA
    from cm_ray.core.averages import WarmUpEMA as WarmUpEMA
    from cm_ray.core.continuous import ContinuousDistillation as ContinuousDistillation
    from cm_ray.core.continuous import ContinuousTraining as ContinuousTraining
    from cm_ray.core.continuous import SimplifiedDistillation as SimplifiedDistillation
    from cm_ray.core.continuous import SimplifiedTraining as SimplifiedTraining
    from cm_ray.core.diffusion import Diffusion as Diffusion
    from cm_ray.core.distance import L1 as L1
    from cm_ray.core.distance import L2 as L2
    from cm_ray.core.distance import AdaptiveL2 as AdaptiveL2
    from cm_ray.core.distance import Norm as Norm
    from cm_ray.core.distance import PseudoHuber as PseudoHuber
    from cm_ray.core.guidance import DrawnGuidance as DrawnGuidance
    from cm_ray.core.guidance import FixedGuidance as FixedGuidance
    from cm_ray.core.guidance import Unguided as Unguided
    from cm_ray.core.methods import ConsistencyDistillation as ConsistencyDistillation
    from cm_ray.core.methods import ConsistencyTraining as ConsistencyTraining
    from cm_ray.core.methods import Denoising as Denoising
    from cm_ray.core.methods import ModelSource as ModelSource
    from cm_ray.core.methods import ProgressiveDistillation as ProgressiveDistillation
    from cm_ray.core.noise_times import Geometric as Geometric
    from cm_ray.core.noise_times import LogUniform as LogUniform
    from cm_ray.core.noise_times import SubVPTimes as SubVPTimes
    from cm_ray.core.noise_times import VPTimes as VPTimes
    from cm_ray.core.precondition import EDM as EDM
    from cm_ray.core.precondition import VE as VE
    from cm_ray.core.precondition import VP as VP
    from cm_ray.core.precondition import Linear as Linear
    from cm_ray.core.precondition import TrigFlow as TrigFlow
    from cm_ray.core.proposals import Grid as Grid
    from cm_ray.core.proposals import Lognormal as Lognormal
    from cm_ray.core.proposals import LognormalIntervals as LognormalIntervals
    from cm_ray.core.proposals import Tuned as Tuned
    from cm_ray.core.proposals import UniformIntervals as UniformIntervals
    from cm_ray.core.schedules import Adaptive as Adaptive
    from cm_ray.core.schedules import AdaptiveDecay as AdaptiveDecay
    from cm_ray.core.schedules import Constant as Constant
    from cm_ray.core.schedules import ConstantDecay as ConstantDecay
    from cm_ray.core.schedules import Doubling as Doubling
    from cm_ray.core.schedules import Halving as Halving
    from cm_ray.core.score_columns import NCSN as NCSN
    from cm_ray.core.score_columns import SubVP as SubVP
    from cm_ray.core.shortcut import DyadicTimes as DyadicTimes
    from cm_ray.core.shortcut import ShortcutTraining as ShortcutTraining
    from cm_ray.core.sliced import SlicedScoreMatching as SlicedScoreMatching
    from cm_ray.core.times import NoiseLevels as NoiseLevels
    from cm_ray.core.truncated import TruncatedTimes as TruncatedTimes
    from cm_ray.core.truncated import TruncatedTraining as TruncatedTraining
    from cm_ray.core.two_times import MeanFlow as MeanFlow
    from cm_ray.core.two_times import SortedTimes as SortedTimes
    from cm_ray.core.weights import SNR as SNR
    from cm_ray.core.weights import InverseGap as InverseGap
    from cm_ray.core.weights import KarrasWeight as KarrasWeight
    from cm_ray.core.weights import SNRPlusOne as SNRPlusOne
    from cm_ray.core.weights import TruncatedSNR as TruncatedSNR
    from cm_ray.core.weights import UniformWeight as UniformWeight
    from cm_ray.data.image_set import ImageSet as ImageSet
    from cm_ray.data.load_images import load_images as load_images
    from cm_ray.drawing.samples import Samples as Samples
    from cm_ray.errors import SettingError as SettingError
    from cm_ray.errors import UserError as UserError
    from cm_ray.metrics.score import Score as Score
    from cm_ray.networks.architectures import ADM as ADM
    from cm_ray.networks.architectures import EDM2 as EDM2
    from cm_ray.networks.architectures import DDPMpp as DDPMpp
    from cm_ray.networks.architectures import NCSNpp as NCSNpp
    from cm_ray.networks.custom import Custom as Custom
    from cm_ray.networks.lpips_distance import LPIPS as LPIPS
    from cm_ray.networks.preconditioned import Consistency as Consistency
    from cm_ray.networks.preconditioned import Denoiser as Denoiser
    from cm_ray.networks.preconditioned import TwoTimes as TwoTimes
    from cm_ray.networks.score_networks import RefineNet as RefineNet
    from cm_ray.recipes.recipe import Recipe as Recipe
    from cm_ray.sampling.samplers import DPM2 as DPM2
    from cm_ray.sampling.samplers import Ancestral as Ancestral
    from cm_ray.sampling.samplers import Euler as Euler
    from cm_ray.sampling.samplers import Heun as Heun
    from cm_ray.sampling.samplers import Jumps as Jumps
    from cm_ray.sampling.samplers import Multistep as Multistep
    from cm_ray.sampling.samplers import OneStep as OneStep
    from cm_ray.sampling.samplers import Progressive as Progressive
    from cm_ray.sampling.samplers import sample as sample
    from cm_ray.sampling.score_samplers import AdaptiveODE as AdaptiveODE
    from cm_ray.sampling.score_samplers import Langevin as Langevin
    from cm_ray.sampling.score_samplers import PredictorCorrector as PredictorCorrector
    from cm_ray.settings.tree import override as override
    from cm_ray.training.trainer import TrainedStep as TrainedStep
    from cm_ray.training.trainer import Trainer as Trainer
