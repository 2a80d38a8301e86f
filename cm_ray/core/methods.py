"""Methods of training: the regression target of the student, and the settings that each method reads.

Every method minimises weight · d(student(x_t, t), aim) over its own aim, which carries no gradient; sliced
score matching adds a derivative of the student to it (`cm_ray.core.sliced`):

=====================================  =======================================================
denoising (training of a teacher)      the clean image
consistency training, iCT, ECT         target(x + s · noise, s)
consistency distillation               target(solver(teacher, x_t, t, s), s)
truncated consistency training         the same, of a first stage where s < t' (`cm_ray.core.truncated`)
functions of two times                 see `cm_ray.core.two_times`
progressive distillation               the denoised image whose Euler step equals two of the teacher's
=====================================  =======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cm_ray.core.diffusion import BoundaryCondition
from cm_ray.core.distance import L2
from cm_ray.core.draw import Draw
from cm_ray.core.guidance import TeacherGuidance, Unguided
from cm_ray.core.loss import regression_loss, training_loss
from cm_ray.core.pairs import distillation_pair, perturb
from cm_ray.core.precondition import Column
from cm_ray.core.proposals import Grid, Lognormal, NoiseTimes, PairTimes, TrainedTimes
from cm_ray.core.schedules import AdaptiveDecay, Constant, ConstantDecay, Halving, TargetDecay
from cm_ray.core.solvers import euler_step, heun_step
from cm_ray.core.types import Denoise, Distance, Images, Times, check_same_shape, per_sample
from cm_ray.core.weights import KarrasWeight, TruncatedSNR, UniformWeight, Weight
from cm_ray.errors import require
from cm_ray.settings.choices import choice


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A trained model that a run starts from; it is copied into the run directory before the first step."""

    model: str = ""
    """A run by its name or directory, a model's folder, models:/NAME@ALIAS, a directory of diffusers, or a
    file of weights (.safetensors, .pt): OpenAI's by their names, or one for the network of this run."""
    column: Literal["own", "edm", "vp", "ve"] = "own"
    """Scalings of a file of weights for the network of this run; "own" for this run's. Other models contain
    theirs."""


class Method:
    """Base class of the training methods; the fields of a subclass are its settings."""

    needs_teacher: ClassVar[bool] = False
    """True if the method evaluates a teacher."""
    teacher_is_consistent: ClassVar[bool] = False
    """True if the teacher is a consistency model, instead of a diffusion model."""
    differentiates: ClassVar[bool] = False
    """True if the method takes a derivative of the target, along a direction."""
    projects: ClassVar[bool] = False
    """True if the loss has a derivative of the student along a random direction, with its gradient."""
    guidance: TeacherGuidance = Unguided()
    """The guidance of the teacher."""
    numbers: ClassVar[int] = 1
    """Uniform numbers that the times of a sample are made of."""

    if TYPE_CHECKING:

        @property
        def boundary(self) -> BoundaryCondition:
            """Boundary condition of the trained model; "none" for a denoiser."""

        @property
        def times(self) -> TrainedTimes:
            """The pairs of times that are trained on."""

        @property
        def distance(self) -> Distance:
            """d, the distance to the regression target."""

        @property
        def weight(self) -> Weight:
            """lambda, the weight of a pair of times."""

    @property
    def has_target(self) -> bool:
        """True if the target network differs from the student."""
        return False

    @property
    def halving(self) -> Halving | None:
        """The rounds of progressive distillation; None for other methods."""
        return None

    @property
    def lowest_time(self) -> float:
        """The smallest t that the model is trained at, where it is greater than that of all times; else 0."""
        return 0.0

    def weigh(self, t: Times, s: Times, column: Column) -> Times:
        """Return the weights of the pairs in the mean loss (b,)."""
        return self.weight(t, s, column)

    def compare(self, prediction: Images, aim: Images, draw: Draw, distance: Distance) -> Times:
        """Return the per-sample loss of a prediction (b,); distance: the method's, on the device."""
        weight = self.weigh(draw.t, draw.s, draw.diffusion.column)
        return regression_loss(prediction, aim, weight, distance)

    def loss(self, student: Denoise, aim: Images, draw: Draw, distance: Distance) -> Times:
        """Return the per-sample loss of a training step (b,), which carries the gradient.

        student: the trained network with the labels and the second time of the step. aim: what the method's
        `aim` returned. distance: the method's, on the device.
        """
        return self.compare(student(draw.x_t, draw.t), aim, draw, distance)

    def target_decay(self, step: int, total_steps: int) -> float:
        """Return mu(step), the share of the old target that is kept."""
        return 0.0

    def gauges(self, step: int, total_steps: int) -> Mapping[str, float]:
        """Return the values of the schedules at a step, for the log."""
        target = {"target_decay": self.target_decay(step, total_steps)} if self.has_target else {}
        return {**self.times.gauges(step, total_steps), **target}

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return the regression target of student(x_t, t) (b, c, h, w). Called without gradient."""
        raise TypeError(f"{type(self).__name__} has no aim")

    def __call__(self, f: Any, x: Images, *, step: int = 0, **options: Any) -> Times:
        """Return the per-sample loss of a training step (b,), with random numbers of PyTorch's generators.

        See `cm_ray.core.loss.training_loss`, which lists the options.
        """
        return training_loss(self, f, x, step=step, **options)


class ConsistencyMethod(Method):
    """A method whose regression target is an answer of the target network."""

    if TYPE_CHECKING:

        @property
        def target(self) -> TargetDecay:
            """mu(k), the decay of the target network."""

    @property
    def has_target(self) -> bool:
        """True unless the target network is the student itself."""
        return self.target != ConstantDecay(mu=0.0)

    def target_decay(self, step: int, total_steps: int) -> float:
        """Return mu(step)."""
        return self.target(step, total_steps, self.times.scales)


@choice(Method, "ct")
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyTraining(ConsistencyMethod):
    """Consistency training without a teacher.  Song et al. 2023, Algorithm 3; settings of iCT and ECT."""

    times: PairTimes = field(default_factory=Grid)
    """The pairs of times that are trained on."""
    distance: Distance = field(default_factory=L2)
    """d, the distance between f(x_t, t) and the target's f(x_s, s)."""
    weight: Weight = field(default_factory=UniformWeight)
    """lambda, the weight of a pair of times."""
    target: TargetDecay = field(default_factory=AdaptiveDecay)
    """mu(k), the decay of the target network."""
    boundary: Literal["skip", "piecewise"] = "skip"
    """f(x, t_min) = x by skip connections (Eq. 5 of the paper) or piecewise (Eq. 4)."""

    def __post_init__(self) -> None:
        """Raise SettingError when the target decay needs a grid and the times are continuous."""
        _check_target(self.target, self.times)

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return target(x + s · noise, s), with the same noise as x_t."""
        return target(perturb(draw.x, draw.noise, draw.s), draw.s)


@choice(Method, "cd")
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyDistillation(ConsistencyMethod):
    """Consistency distillation of a diffusion model.  Song et al. 2023, Algorithm 2."""

    needs_teacher: ClassVar[bool] = True

    teacher: ModelSource = field(default_factory=ModelSource)
    """The diffusion model that is distilled."""
    guidance: TeacherGuidance = field(default_factory=Unguided)
    """The guidance of the teacher."""
    solver: Literal["heun", "euler"] = "heun"
    """The step from t to s along the teacher's ODE."""
    times: Grid = field(default_factory=lambda: Grid(scales=Constant()))
    """The pairs of times that are trained on."""
    distance: Distance = field(default_factory=L2)
    """d, the distance between f(x_t, t) and the target's f(x_s, s)."""
    weight: Weight = field(default_factory=UniformWeight)
    """lambda, the weight of a pair of times."""
    target: TargetDecay = field(default_factory=ConstantDecay)
    """mu(k), the decay of the target network."""
    boundary: Literal["skip", "piecewise"] = "skip"
    """f(x, t_min) = x by skip connections (Eq. 5 of the paper) or piecewise (Eq. 4)."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return target(x_s, s), with one solver step x_s of the teacher's ODE from x_t."""
        solver = euler_step if self.solver == "euler" else heun_step
        _, x_s = distillation_pair(teacher, solver, draw.x_t, draw.t, draw.s)
        return target(x_s, draw.s)


@choice(Method, "edm")
@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising(Method):
    """Training of a diffusion model, a teacher.  Karras et al. 2022, Eq. 2; denoising score matching."""

    boundary: ClassVar[BoundaryCondition] = "none"

    times: NoiseTimes = field(default_factory=Lognormal)
    """The noise levels that are trained on."""
    distance: Distance = field(default_factory=L2)
    """d, the distance between D(x_t, t) and the clean image."""
    weight: Weight = field(default_factory=KarrasWeight)
    """lambda, the weight of a noise level."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return x, the clean image."""
        return draw.x


@choice(Method, "pd")
@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressiveDistillation(Method):
    """Progressive distillation: two steps of the teacher in one, round after round.

    Salimans & Ho 2022, Algorithm 2, with sigma(t) = t and alpha = 1.
    """

    needs_teacher: ClassVar[bool] = True
    boundary: ClassVar[BoundaryCondition] = "none"

    teacher: ModelSource = field(default_factory=ModelSource)
    """The diffusion model that is distilled."""
    guidance: TeacherGuidance = field(default_factory=Unguided)
    """The guidance of the teacher."""
    rounds: Halving = field(default_factory=Halving)
    """The sampling steps of the students."""
    distance: Distance = field(default_factory=L2)
    """d, the distance between D(x_t, t) and the image that two steps of the teacher lead to."""
    weight: Weight = field(default_factory=TruncatedSNR)
    """lambda, the weight of a time."""

    @property
    def times(self) -> Grid:
        """Neighbours on the grid of the round, uniformly distributed."""
        return Grid(scales=self.rounds)

    @property
    def halving(self) -> Halving:
        """The rounds."""
        return self.rounds

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return the image whose Euler step from x_t equals two Euler steps of the teacher."""
        middle = middle_time(draw.t, draw.s, draw.diffusion.rho)
        x_middle = euler_step(teacher, draw.x_t, draw.t, middle)
        x_s = euler_step(teacher, x_middle, middle, draw.s)
        return euler_to_denoised(draw.x_t, draw.t, x_s, draw.s)


def middle_time(t: Times, s: Times, rho: float) -> Times:
    """Return the time that halves the interval from t to s on the Karras curve (b,).

    The teacher's grid of progressive distillation is the one with twice as many intervals.
    """
    power = 1 / rho
    return (0.5 * (t.double() ** power + s.double() ** power)).pow(rho).to(t.dtype)


def euler_to_denoised(x_t: Images, t: Times, x_s: Images, s: Times) -> Images:
    """Return D such that x_s is Euler's step from x_t: the inverse of `euler_step` (b, c, h, w)."""
    check_same_shape(x_t, x_s)
    return x_t - per_sample(t / (s - t), x_t) * (x_s - x_t)


def _check_target(target: TargetDecay, times: PairTimes) -> None:
    adaptive = isinstance(target, AdaptiveDecay) and times.scales is None
    require(not adaptive, "target", "adaptive follows N(k) of times grid: choose target constant")
