"""A recipe: all settings of a training run, as one tree of frozen dataclasses.

The command line, the run directory's config.json, the sweeps' dotted paths and MLflow's parameters are made
from it. Its parts are the dataclasses that compute: a method with its times, distance and weight, a column, a
network.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from cm_ray.core import shortcut as shortcut  # a choice of method
from cm_ray.core import sliced as sliced  # a choice of method
from cm_ray.core import truncated as truncated  # a choice of method
from cm_ray.core import two_times as two_times  # choices of method
from cm_ray.core.augmentation import Augmentation, EDMAugmentation, Flip
from cm_ray.core.averages import Averages, PowerEMA
from cm_ray.core.continuous import SimplifiedDistillation, SimplifiedTraining
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.methods import ConsistencyTraining, Method, ModelSource
from cm_ray.core.noise_times import Geometric  # and the other choices of times there
from cm_ray.core.precondition import EDM, Column, Linear, TrigFlow
from cm_ray.core.score_columns import NCSN
from cm_ray.core.times import NoiseLevels
from cm_ray.core.uncertainty import NoUncertainty, Uncertainty
from cm_ray.core.weights import KarrasWeight
from cm_ray.errors import SettingError, UserError, require
from cm_ray.networks import custom as custom  # a choice of network
from cm_ray.networks import lpips_distance as lpips_distance  # a choice of distance
from cm_ray.networks.architectures import ADM, GroupNormUNet, Network
from cm_ray.networks.arithmetic import Precision
from cm_ray.networks.score_networks import RefineNet
from cm_ray.recipes.sections import (
    CheckpointSettings,
    ClusterSettings,
    DataSettings,
    EvaluationSettings,
    Optimizer,
    RAdam,
    TrackingSettings,
)
from cm_ray.sampling.sampler import check_guidance
from cm_ray.sampling.samplers import Heun, OneStep, Progressive, Sampler
from cm_ray.sampling.score_samplers import Langevin
from cm_ray.sampling.text import parse
from cm_ray.settings import tree
from cm_ray.settings.tree import INLINE, flatten

TEACHER = "teacher"
"""The name that stands for the method's teacher as the model of `init_from`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A complete training run."""

    name: str = "run"
    """Name of the run: of its default run directory and in MLflow."""
    run_dir: str = ""
    """Directory of everything that the run writes, on storage that all nodes see, or its address
    (s3://bucket/run); the same command goes on from there. Empty: $CM_RAY_RUNS or ./runs, and `name`."""
    method: Method = field(default_factory=ConsistencyTraining, metadata=INLINE)
    """ct: consistency training, also with the settings of iCT and ECT; cd: consistency distillation; edm: a
    diffusion model, such as a teacher; pd: progressive distillation; tcm: a second
    stage of consistency training, for large t; meanflow,
    shortcut: functions of two times; ssm: a diffusion model by sliced score matching."""
    init_from: ModelSource = field(default_factory=ModelSource)
    """The model whose weights training starts from; teacher: the method's; empty: random weights."""
    steps: int = 800_000
    """K, training steps; of all rounds together in method pd."""
    batch_size: int = 512
    """Images per step, over all workers."""
    accumulate: int = 1
    """Forward and backward passes per step and worker, each with its share of the batch."""
    seed: int = 0
    """Seed of weights, noise, times and data order."""
    precision: Precision = "float32"
    """Precision of the networks' arithmetic; weights, averages, optimizer's state, preconditioning and loss
    stay float32. tf32: NVIDIA's rounding of products to 10 bits, for convolutions and matrix products alike;
    bfloat16, float16: autocast."""
    compile: bool = False
    """Compile the networks by torch.compile: minutes at the start. Results are the same to rounding."""
    averages: Averages = field(default_factory=PowerEMA)
    """The averages of the student's weights over the steps; the first is the one to sample from."""
    uncertainty: Uncertainty = field(default_factory=NoUncertainty)
    """The uncertainty u(t) of the loss l at a noise level: what is trained is e^-u l + u.  EDM2; sCM."""
    log_every: int = 100
    """Steps between rows of metrics.jsonl."""
    column: Column = field(default_factory=EDM)
    """The scalings of the network's input, output and time: a column of table 1 of Karras et al. 2022."""
    noise: NoiseLevels = field(default_factory=NoiseLevels)
    """The range of noise levels, of training and of sampling."""
    network: Network = field(default_factory=ADM)
    """The network F_theta."""
    data: DataSettings = field(default_factory=DataSettings)
    """The images."""
    augmentation: Augmentation = field(default_factory=Flip)
    """Random transformations of the training images. flip: mirrors every second one; edm: those of Karras et
    al. 2022, whose parameters the network gets, so that samples are none of them; none."""
    optimizer: Optimizer = field(default_factory=RAdam)
    """The optimizer."""
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    """Checkpoints."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Samples and scores."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Workers and their resources."""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    """MLflow."""

    def __post_init__(self) -> None:
        """Raise SettingError when settings are out of range, or do not go with each other."""
        for path, value in flatten(self).items():
            finite = not isinstance(value, float) or math.isfinite(value)
            require(finite, path, f"must be a finite number, not {value}")
        _check_batch(self)
        _check_run(self)
        _check_method(self)
        _check_samplers(self)

    @property
    def sampled_at_once(self) -> int:
        """The number of images that a device samples at once during a training, or at its end.

        They are not more than those of a micro-batch, whose gradients need more memory than their samples.
        """
        rows = self.batch_size // self.cluster.workers.most // self.accumulate
        return min(self.evaluation.batch_size, rows)

    @property
    def diffusion(self) -> Diffusion:
        """The noise levels and the preconditioning of the trained model."""
        return Diffusion.of(self.noise, self.column, self.method.boundary, self.method.guidance.scales)

    def own_sampler(self, steps: int = 0) -> Sampler:
        """Return the sampler that the trained model is made for.

        steps: of method pd, the sampling steps of a round; 0: of the last. Models of geometric noise levels
        are known at these alone, as those of NCSNv2, which takes 5 Langevin steps at each; NCSN takes 100
        of epsilon 2e-5 at a last level of 0.01, a step size of 0.2.
        """
        if self.method.halving is not None:
            return Progressive(steps or self.method.halving.s0)
        if isinstance(self.method.times, Geometric):
            count = self.method.times.count
            if isinstance(self.column, NCSN):
                return Langevin(steps=count, repeats=100, step_size=0.2, denoise=False)
            return Langevin(steps=count, repeats=5)
        return Heun(steps=18) if self.diffusion.denoiser else OneStep()

    def averaged_steps(self, step: int) -> int:
        """Return the number of steps that the averages have taken after `step` steps.

        They begin with the training, and anew with every round of progressive distillation.
        """
        starts = self.method.halving.starts(self.steps)[:-1] if self.method.halving else [0]
        return step - max(start for start in starts if start < max(step, 1))

    def average_facts(self, step: int, index: int = 0) -> dict[str, Any]:
        """Return what a model's specification says of average `index` after `step` steps."""
        share = self.averages.initial_shares(self.averaged_steps(step))[index]
        return {"ema_length": self.averages.lengths[index], "initial_share": share}

    @property
    def snapshot_steps(self) -> frozenset[int]:
        """The numbers of finished steps after which a snapshot of the averages is kept."""
        if not isinstance(self.averages, PowerEMA):
            return frozenset()
        starts = self.method.halving.starts(self.steps) if self.method.halving else [0, self.steps]
        rounds = itertools.pairwise(starts)
        return frozenset(step for ends in rounds for step in self.averages.snapshot_steps(*ends))

    @property
    def teacher(self) -> ModelSource | None:
        """The teacher that the method names; none where it needs none."""
        source: ModelSource | None = getattr(self.method, "teacher", None)
        return source


OPERATIONAL = (
    "name",
    "run_dir",
    "log_every",
    "accumulate",
    "compile",
    "averages.candidates",
    "averages.samples",
    "data.path",
    "data.cache",
    "data.on_bad_image",
    "data.most_pixels",
    "network.gradient_checkpointing",
    "distance.weights",
    "checkpoint",
    "evaluation",
    "cluster",
    "tracking",
)
"""Dotted paths (and all below them) that may change between a run and its continuation."""


def check_models_named(recipe: Recipe) -> None:
    """Raise SettingError when a recipe that is to be trained does not name the models that it begins with."""
    what = "takes a run directory, models:/NAME@ALIAS, a directory of diffusers or a file of weights"
    if recipe.teacher is not None:
        require(bool(recipe.teacher.model), "teacher.model", f"is missing: it {what}")
    elif recipe.init_from.model == TEACHER:
        raise SettingError("init_from.model", f"is missing: it {what}")


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return the settings, beside operational ones, in which a run and its continuation differ."""
    return tree.differences(old, new, OPERATIONAL)


def _check_batch(recipe: Recipe) -> None:
    workers, micro = recipe.cluster.workers.most, recipe.accumulate
    require(micro >= 1, "accumulate", f"must be at least 1, not {micro}")
    require(recipe.batch_size >= 1, "batch_size", f"must be at least 1, not {recipe.batch_size}")
    require(
        recipe.batch_size % (workers * micro) == 0,
        "batch_size",
        f"{recipe.batch_size} does not split into {workers} workers x {micro} micro-batches (accumulate); "
        f"choose a multiple of {workers * micro}",
    )


def _check_run(recipe: Recipe) -> None:
    every, scored = recipe.checkpoint.every, recipe.evaluation.every
    require(recipe.steps >= 1, "steps", f"must be at least 1, not {recipe.steps}")
    require(0 <= recipe.seed < 2**63, "seed", f"must be in [0, 2^63), not {recipe.seed}")
    require(recipe.log_every >= 1, "log_every", f"must be at least 1, not {recipe.log_every}")
    require(
        scored % every == 0,
        "evaluation.every",
        f"{scored} must be a multiple of checkpoint.every {every}: scores belong to checkpoints",
    )
    warmup = recipe.optimizer.warmup_steps
    require(
        warmup < recipe.steps, "optimizer.warmup_steps", f"{warmup} must be less than steps {recipe.steps}"
    )


def _check_method(recipe: Recipe) -> None:
    karras = isinstance(recipe.method.weight, KarrasWeight) and not isinstance(recipe.column, EDM | TrigFlow)
    require(not karras, "weight", "karras needs the sigma_data of column edm or trigflow")
    least, levels = recipe.method.lowest_time, recipe.noise
    within = not least or levels.t_min < least < levels.t_max
    require(within, "times.cut", f"must be between {levels.t_min:g} and {levels.t_max:g}, not {least:g}")
    if isinstance(recipe.method, SimplifiedTraining | SimplifiedDistillation):
        known = recipe.method.sigma_data > 0 or isinstance(recipe.column, EDM | TrigFlow)
        problem = "of sct and scd must be trigflow or edm, which have a sigma_data; or set sigma_data"
        require(known, "column", problem)
    finite = not recipe.diffusion.two_times or isinstance(recipe.column, Linear | TrigFlow)
    require(finite, "column", "of two times must be linear or trigflow, whose time is finite at 0")
    _check_score_network(recipe)
    conditional = not recipe.method.guidance.asked or recipe.network.conditional
    require(conditional, "guidance", "is of networks with classes: set network.conditional, or none")
    told = not isinstance(recipe.augmentation, EDMAugmentation) or isinstance(recipe.network, GroupNormUNet)
    require(told, "augmentation", "edm needs a network that takes its parameters: adm, ddpm++ or ncsn++")
    if (halving := recipe.method.halving) is not None:
        starts = halving.starts(recipe.steps)
        require(
            all(start < end for start, end in itertools.pairwise(starts)),
            "steps",
            f"{recipe.steps} are too few for the rounds from {halving.s1} sampling steps to {halving.s0}: "
            "every round needs one",
        )


def _check_score_network(recipe: Recipe) -> None:
    levels = recipe.network.levels if isinstance(recipe.network, RefineNet) else 0
    if levels:
        known = recipe.column.count if isinstance(recipe.column, NCSN) else 0
        problem = f"{levels} of network refinenet needs column ncsn with the same count"
        require(levels == known, "network.levels", problem)
    twice = recipe.method.projects and recipe.compile
    require(not twice, "compile", "does not go with method ssm, which takes a second backward pass")


def _check_samplers(recipe: Recipe) -> None:
    own = recipe.own_sampler()
    for text in recipe.evaluation.samplers:
        try:
            sampler = parse(text, recipe.diffusion, own=own)
            check_guidance(sampler, recipe.diffusion, null_class=recipe.network.label_dropout > 0)
        except UserError as error:
            raise SettingError("evaluation.samplers", f"{text}: {error}") from error
        least = recipe.method.lowest_time
        require(
            not least or sampler.times(recipe.noise)[1] >= least,
            "evaluation.samplers",
            f"{text}: has a time point below times.cut {least:g}, where nothing is trained; take others",
        )
