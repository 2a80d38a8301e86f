"""The loss that every method minimises, and that of a step in an ordinary PyTorch loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from cm_ray.core.derivative import Target
from cm_ray.core.draw import Draw
from cm_ray.core.guidance import TeacherGuidance, guided_teacher
from cm_ray.core.pairs import perturb
from cm_ray.core.proposals import TrainedTimes
from cm_ray.core.types import Denoise, Distance, Images, Jump, Labels, Times
from cm_ray.core.uncertainty import uncertain_loss

if TYPE_CHECKING:
    from torch import Generator, Tensor


class TrainedBy(Protocol):
    """The part of a method that its loss is made of; see `cm_ray.core.methods.Method`."""

    @property
    def needs_teacher(self) -> bool:
        """True if the method evaluates a teacher."""

    @property
    def times(self) -> TrainedTimes:
        """The pairs of times that are trained on."""

    @property
    def distance(self) -> Distance:
        """d, the distance to the regression target."""

    @property
    def guidance(self) -> TeacherGuidance:
        """The guidance of the teacher."""

    @property
    def numbers(self) -> int:
        """Uniform numbers that the times of a sample are made of."""

    @property
    def projects(self) -> bool:
        """True if the loss has a derivative along a random direction."""

    def loss(self, student: Denoise, aim: Images, draw: Draw, distance: Distance, /) -> Times:
        """Return the per-sample loss."""

    def gauges(self, step: int, total_steps: int, /) -> Mapping[str, float]:
        """Return the values of the curricula at a step."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise, /) -> Images:
        """Return the regression target."""


def regression_loss(prediction: Images, aim: Images, weight: Times, distance: Distance) -> Times:
    """Return the per-sample loss, weight · d(prediction, aim), of every method (b,); the caller averages.

    Song et al. 2023, Eq. 7 and Eq. 10 (consistency); Karras et al. 2022, Eq. 2 (denoising, squared l2);
    Salimans & Ho 2022, Algorithm 2. prediction: student(x_t, t), carries the gradient (b, c, h, w). aim: the
    regression target, detached here; see `cm_ray.core.methods`. weight: lambda (b,). Raises ValueError on
    unequal shapes.
    """
    return weight * distance(prediction, aim.detach())


def training_loss(
    method: TrainedBy,
    f: Any,
    x: Images,
    *,
    step: int = 0,
    total_steps: int | None = None,
    labels: Labels | None = None,
    target: Any = None,
    teacher: Any = None,
    uncertainty: Any = None,
    generator: Generator | None = None,
) -> Times:
    """Return the per-sample loss of a training step (b,); its mean is what to minimise.

    f: the student, a map (x_t, t[, labels]) to clean images with a `diffusion`, such as `Consistency`; of
    two times (x_t, t, labels, s), such as `TwoTimes`; with the keyword scale, if it takes that of guidance.
    x: clean images in [-1, 1] (b, c, h, w). step, total_steps: k and K of the method's schedules; K is
    optional when nothing depends on it. labels: int64 (b,), for f, target and teacher. target: the target
    network; default: the student itself. teacher: the diffusion model of a distillation. uncertainty: a
    learned u(t), a map of times (b,), such as `UncertaintyNetwork` of `cm_ray.networks.uncertainty_network`.
    generator: of the random numbers; default: PyTorch's. Student and target have the same dropout mask.
    Raises ValueError without a teacher or a total number of steps when the method needs them.
    """
    if method.needs_teacher and teacher is None:
        raise ValueError(f"{type(method).__name__} needs a teacher: give teacher=")
    devices = [x.device] if x.device.type == "cuda" else []
    seed = int(torch.randint(2**62, (), generator=generator, device=_device(generator)))
    draw = _drawn(method, x, f, step, _total(method, total_steps), generator)
    with torch.random.fork_rng(devices=devices):
        with torch.no_grad():
            torch.manual_seed(seed)
            taught = guided_teacher(teacher, labels, draw.scale)
            aim = method.aim(draw, Target(_with(target or f, labels, draw.student_scale)), taught)
        torch.manual_seed(seed)
        student = _with(f, labels, draw.student_scale)
        loss = method.loss(lambda x_t, t: student(x_t, t, draw.end), aim, draw, method.distance)
    return loss if uncertainty is None else uncertain_loss(loss, uncertainty(draw.t))


def _total(method: TrainedBy, total_steps: int | None) -> int:
    """Return K. Where it is not given, raise ValueError unless the curricula are the same for any K."""
    if total_steps is not None:
        return total_steps
    many = 10**9
    if method.gauges(0, many) != method.gauges(many, many):
        raise ValueError(f"{type(method).__name__} changes with the steps: give total_steps=")
    return many


def _drawn(method: TrainedBy, x: Images, f: Any, step: int, total: int, generator: Generator | None) -> Draw:
    options: dict[str, Any] = {"generator": generator, "device": _device(generator)}
    size = (len(x),) if method.numbers == 1 else (len(x), method.numbers)
    uniforms = torch.rand(size, **options).to(x.device)
    noise = torch.randn(x.shape, **options).to(x)
    t, s = method.times(uniforms, step, total, f.diffusion)
    t, s = t.to(x.dtype), s.to(x.dtype)
    signs = 2 * torch.randint(2, x.shape, **options).to(x) - 1 if method.projects else None
    scale = None
    if method.guidance.asked:
        scale = method.guidance.draw(torch.rand(len(x), **options).to(x))
    return Draw(x, noise, perturb(x, noise, t), t, s, f.diffusion, step, signs, scale)


def _with(function: Any, labels: Tensor | None, scale: Times | None) -> Jump:
    named = {} if scale is None else {"scale": scale}

    def evaluate(x: Images, t: Times, s: Times | None = None, /) -> Images:
        given = (labels, s) if s is not None else () if labels is None else (labels,)
        images: Images = function(x, t, *given, **named)
        return images

    return evaluate


def _device(generator: Generator | None) -> torch.device:
    return generator.device if generator is not None else torch.device("cpu")
