"""Memory that a training needs, counted in a step that runs on tensors without storage."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cm_ray.core.draw import Draw
from cm_ray.core.loss import regression_loss
from cm_ray.core.types import Distance, Images, Times
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.normalisation import GroupNorm
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
    batch: int
    """Peak of the forward and backward passes beyond the state: activations and gradients."""
    optimizing: int
    """Peak of the optimizer's step beyond the state: gradients and temporary tensors."""

    @property
    def total(self) -> int:
        """Peak of a step, in bytes."""
        return self.state + max(self.batch, self.optimizing)


@lru_cache(maxsize=64)
def training_memory(config: Recipe, spec: ModelSpec, rows: int, device: str = "cpu") -> TrainingMemory:
    """Return the memory of a worker that processes `rows` images at a time.

    Aim, loss and backward pass run on fake tensors; each is counted until it is freed. With `accumulate`, the
    gradients of earlier micro-batches are included. device: "cpu" or "cuda", where autocast normalises in
    float32. The teacher is assumed to have the student's size. Raises UserError when the network does not fit
    the images.
    """
    with torch.device("meta"):
        student, distance = Model(spec), untrained_distance(config)
    weights = [p for p in student.parameters() if p.requires_grad]
    trained = sum(p.nbytes for p in weights)
    copies = 1 + len(config.averages.lengths) + config.method.has_target + config.method.needs_teacher
    state = copies * _bytes_of(student) + _bytes_of(distance) + _MOMENTS * trained
    one_kernel = isinstance(config.optimizer, Adam) and device == "cuda"
    optimizing = trained * (1 if one_kernel else 1 + _OPTIMIZER_SCRATCH)
    count = sum(p.numel() for p in student.parameters())
    before = trained if config.accumulate > 1 else 0  # gradients of earlier micro-batches
    batch = before + _batch(config, spec, rows, student, distance, device)
    return TrainingMemory(parameters=count, state=state, batch=batch, optimizing=optimizing)


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
    share = config.batch_size // config.cluster.num_workers
    return next(count for count in range(-(-share // rows), share + 1) if share % count == 0)


def _batch(
    config: Recipe, spec: ModelSpec, rows: int, student: Model, distance: Distance, device: str
) -> int:
    """Return the peak, in bytes, of activations, their gradients and the gradients of weights."""
    if device == "cuda":
        _normalise_in_float32(student)
    with FakeTensorMode(), _Counted() as counted:
        _without_storage(student.train())
        if isinstance(distance, nn.Module):
            _without_storage(distance)
        x, times = torch.empty(rows, *spec.shape), torch.ones(rows)
        labels = torch.zeros(rows, dtype=torch.int64) if spec.classes else None
        begun = counted.most = counted.now

        def network(x_t: Images, t: Times) -> Images:
            return student(x_t, t, labels)

        student.precision = "float32" if config.precision == "tf32" else config.precision  # of one size
        with torch.no_grad():
            aim = config.method.aim(Draw(x, x, x, times, times, config.noise), network, network)
        answer = network(x, times)
        regression_loss(answer, aim, times, distance).mean().backward()
    return counted.most - begun


def _bytes_of(module: object) -> int:
    """Return the bytes of a module's parameters and buffers; a distance without weights has none."""
    if not isinstance(module, nn.Module):
        return 0
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _without_storage(module: nn.Module) -> None:
    """Replace all parameters and buffers by fake tensors on the CPU, a device that autocast supports."""
    for layer in module.modules():
        for name, p in layer.named_parameters(recurse=False):
            fake = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype)
            setattr(layer, name, nn.Parameter(fake, requires_grad=p.requires_grad))
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(layer, name, torch.empty_strided(buffer.shape, buffer.stride(), dtype=buffer.dtype))


def _normalise_in_float32(student: Model) -> None:
    """Make group norms cast their inputs to float32, as autocast does on CUDA but not on the CPU."""
    for layer in student.modules():
        if isinstance(layer, GroupNorm):
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))


def untrained_distance(config: Recipe) -> Distance:
    """Return the distance of the recipe; LPIPS gets random weights, which have the same size."""
    distance = config.method.distance
    if not isinstance(distance, LPIPS):
        return distance
    from cm_ray.networks.perceptual import perceptual_distance

    return perceptual_distance(distance, random_trunk=True)


class _Counted(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while the mode is active, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
