"""Memory that a training needs, counted in a step that runs on tensors without storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cm_ray.budget.evaluation_memory import evaluation_bytes, extractor_bytes
from cm_ray.core.averages import PowerEMA
from cm_ray.core.derivative import Target
from cm_ray.core.draw import Draw
from cm_ray.core.types import Distance, Images, Times
from cm_ray.networks.counted_memory import CountedMemory, bytes_of, without_storage
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.sampling_memory import counted_precision, normalise_in_float32
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import Adam

_MOMENTS = 2
_OPTIMIZER_SCRATCH = 2
"""Copies of all weights that an optimizer step makes and frees when it updates all tensors at once."""
_MANY = 32
"""Images at a time, of which the activations are larger than the gradients."""
_HOST = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Memory of a worker in bytes, without PyTorch itself and the buffers of libraries."""

    parameters: int
    """Number of weights of the network."""
    state: int
    """Bytes of student, target, teacher, distance, averages and the optimizer's moments."""
    extractor: int
    """Bytes of the extractor of the scores."""
    batch: int
    """Peak of the forward and backward passes beyond the state: activations and gradients."""
    optimizing: int
    """Peak of the optimizer's step beyond the state: gradients and temporary tensors."""
    evaluating: int
    """Peak of a sample grid and scores beyond the state: a copy of the model, samples, features."""
    copies: int
    """Copies on the host that are written in the background: of a checkpoint, and a snapshot of averages."""
    device: str
    """cpu or cuda."""

    @property
    def step(self) -> int:
        """Peak of a step alone, in bytes."""
        return self.state + max(self.batch, self.optimizing)

    @property
    def total(self) -> int:
        """Peak of the device's memory in a training, in bytes; on CPUs the copies are there, too."""
        copies = self.copies if self.device == "cpu" else 0
        return self.state + self.extractor + max(self.batch, self.optimizing, self.evaluating) + copies


@lru_cache(maxsize=64)
def training_memory(config: Recipe, spec: ModelSpec, rows: int, device: str = "cpu") -> TrainingMemory:
    """Return the memory of a worker that processes `rows` images at a time.

    Aim, loss and backward pass run on fake tensors; each is counted until it is freed. With `accumulate`, the
    gradients of earlier micro-batches are included. So are the samples and features of scores, but not an
    extractor of one's own, nor the images of the data set. device: "cpu" or "cuda", where autocast normalises
    in float32. The teacher is assumed to have the student's size. Raises UserError when the network does not
    fit the images.
    """
    with torch.device("meta"):
        student, distance = Model(spec), untrained_distance(config)
    weights = [p for p in student.parameters() if p.requires_grad]
    trained = sum(p.nbytes for p in weights)
    copies = 1 + len(config.averages.lengths) + config.method.has_target + config.method.needs_teacher
    state = copies * bytes_of(student) + bytes_of(distance) + _MOMENTS * trained
    one_kernel = isinstance(config.optimizer, Adam) and device == "cuda"
    optimizing = trained * (1 if one_kernel else 1 + _OPTIMIZER_SCRATCH)
    count = sum(p.numel() for p in student.parameters())
    before = trained if config.accumulate > 1 else 0  # gradients of earlier micro-batches
    batch = before + _batch(config, spec, rows, student, distance, device)
    return TrainingMemory(
        parameters=count,
        state=state,
        extractor=extractor_bytes(config),
        batch=batch,
        optimizing=optimizing,
        evaluating=evaluation_bytes(config, spec, rows, device),
        copies=_copies(config, bytes_of(student), trained),
        device=device,
    )


def _copies(config: Recipe, model: int, trained: int) -> int:
    """Return the bytes of a checkpoint, of `model` bytes a network, and of a snapshot if there are any.

    The teacher of a later round of progressive distillation is a part of the checkpoint.
    """
    averages = len(config.averages.lengths)
    networks = 1 + averages + config.method.has_target + (config.method.halving is not None)
    snapshot = averages if isinstance(config.averages, PowerEMA) and config.averages.snapshots else 0
    return (networks + snapshot) * model + _MOMENTS * trained


def of_one_image(config: Recipe, spec: ModelSpec, device: str = "cpu") -> float:
    """Return the bytes of each further image at a time, when activations decide the peak."""
    few, many = (training_memory(config, spec, rows, device).batch for rows in (_MANY, 2 * _MANY))
    return (many - few) / _MANY


def most_rows(config: Recipe, spec: ModelSpec, budget: float, device: str = "cpu") -> int:
    """Return the number of images at a time that fit into `budget` bytes; 0 if not even one does.

    Activations decide the peak for many images, gradients for few: the first guess is made for many.
    """
    each = of_one_image(config, spec, device)
    many = training_memory(config, spec, _MANY, device).total
    rows = max(1, _MANY + math.floor((budget - many) / each))
    while rows and (over := training_memory(config, spec, rows, device).total - budget) > 0:
        rows = max(0, rows - max(1, math.floor(over / each)))
    return rows


def accumulate_for(config: Recipe, rows: int) -> int:
    """Return the smallest `accumulate` whose micro-batches are equal and have at most `rows` >= 1 images."""
    share = config.batch_size // config.cluster.workers.most
    return next(count for count in range(-(-share // rows), share + 1) if share % count == 0)


def _batch(
    config: Recipe, spec: ModelSpec, rows: int, student: Model, distance: Distance, device: str
) -> int:
    """Return the peak, in bytes, of activations, their gradients and the gradients of weights."""
    if device == "cuda":
        normalise_in_float32(student)
    with FakeTensorMode(), CountedMemory(device) as counted:
        without_storage(student.train())
        if isinstance(distance, nn.Module):
            without_storage(distance)
        x, times = torch.empty(rows, *spec.shape), torch.ones(rows)
        labels = torch.zeros(rows, dtype=torch.int64) if spec.classes else None
        begun = counted.peak_from_now()

        def network(x_t: Images, t: Times, s: Times | None = None) -> Images:
            times = None if s is None else s.repeat(len(t) // rows)
            return student(x_t, t, None if labels is None else labels.repeat(len(t) // rows), times)

        student.precision = counted_precision(config.precision)
        with torch.no_grad():
            draw = Draw(x, x, x, times, times, config.diffusion, direction=x)
            aim = config.method.aim(draw, _AsTwice(network), network)
        config.method.loss(network, aim, draw, distance).mean().backward()
    return counted.most - begun


class _AsTwice(Target):
    """A target whose derivative counts as twice as many images, since fake tensors have no forward mode."""

    def along(self, x_t: Images, t: Times, dx: Images, dt: Times) -> tuple[Images, Images]:
        """Return images of the shapes of the value and of the derivative."""
        value, derivative = self.plain(torch.cat([x_t, dx]), torch.cat([t, dt])).chunk(2)
        return value, derivative


def untrained_distance(config: Recipe) -> Distance:
    """Return the distance of the recipe; LPIPS gets random weights, which have the same size."""
    distance = config.method.distance
    if not isinstance(distance, LPIPS):
        return distance
    from cm_ray.networks.perceptual import perceptual_distance

    return perceptual_distance(distance, precision=counted_precision(config.precision), random_trunk=True)
