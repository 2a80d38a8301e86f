"""The training step: runs the networks, the loss, the optimizer and the averages, on one worker of many."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from cm_ray.config import TrainConfig
from cm_ray.core import times
from cm_ray.core.ema import update_average
from cm_ray.core.losses import consistency_loss
from cm_ray.core.noise import Purpose, derived_seed, normal, uniform
from cm_ray.core.pairs import training_pair
from cm_ray.core.types import Distance, Images
from cm_ray.errors import UserError
from cm_ray.networks.model import ConsistencyModel, ModelSpec, from_uint8, load_weights
from cm_ray.training import recipe
from cm_ray.training.checkpoint import Checkpoint

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}

_REMEDY = (
    "Begin again in another --run-dir with a lower --optimizer.learning-rate or with "
    "--optimizer.gradient-clip; the last good checkpoint is kept."
)


@dataclass(frozen=True, slots=True)
class Batch:
    """A worker's share of a global batch."""

    images: Tensor
    """uint8 (b, c, h, w)."""
    labels: Tensor
    """int64 (b,), -1 where there is none; used by conditional networks only."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every global batch this worker takes."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True, slots=True)
class StepStats:
    """What a step reports."""

    step: int
    """Steps done."""
    loss: Tensor
    """Mean loss of this worker's share, a scalar on the device: reading it waits for the device."""
    num_scales: int
    """N(k) of the step."""
    target_decay: float
    """mu(k) of the step."""


class Engine:
    """Consistency training (Song et al. 2023, Algorithm 3; with iCT's settings, Song & Dhariwal 2023).

    wrap: makes a data-parallel module of the student, e.g. DistributedDataParallel; the loss is averaged
    over the worker's share, so averaging gradients over workers gives the global batch's gradient.
    All randomness is a function of (seed, step, position in the global batch, purpose): an engine that
    goes on from a checkpoint does what an uninterrupted one would have done, on CPU to the bit.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        *,
        device: torch.device | str = "cpu",
        share: Share | None = None,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        distance: Distance | None = None,
    ) -> None:
        self.config, self.spec, self.share = config, spec, share or Share()
        self.device = torch.device(device)
        self.student = build_student(spec, config.seed).to(self.device)
        self.replica = wrap(self.student) if wrap else self.student
        self.scales = recipe.scales(config)
        self.target_decay = recipe.target_decay(config, self.scales)
        self.proposal, self.weight = recipe.proposal(config), recipe.weight(config)
        self.distance = distance or recipe.distance(config, self.device)
        self.target = _frozen_copy(self.student, self.device) if not _target_is_student(config) else None
        self.averages = [[p.detach().clone() for p in self._parameters()] for _ in config.ema_decays]
        self.optimizer = torch.optim.RAdam(
            self.student.parameters(),
            lr=config.optimizer.learning_rate,
            betas=(0.9, config.optimizer.beta2),
            weight_decay=config.optimizer.weight_decay,
            decoupled_weight_decay=True,
            foreach=True,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.step = 0
        self._unchecked: tuple[int, Tensor] | None = None

    def train(self, batches: Iterable[Batch]) -> Iterator[StepStats]:
        """Take steps until `config.steps` are done, yielding after each optimizer step.

        Raises UserError when the loss is not finite, one step late (so that a GPU is not waited for) but
        never after a checkpoint was taken.
        """
        batches = iter(batches)
        while self.step < self.config.steps:
            stats = self.one_step(next(batches))
            self.check_finite()
            self._unchecked = (stats.step, stats.loss)
            yield stats
        self.check_finite()

    def one_step(self, batch: Batch) -> StepStats:
        """Take one optimizer step on this worker's share of the global batch."""
        config, step = self.config, self.step
        rows = config.batch_size // self.share.world // config.accumulate
        if len(batch.images) != rows * config.accumulate:
            raise ValueError(f"expected {rows * config.accumulate} images, got {len(batch.images)}")
        self.student.train()
        losses = []
        for part in range(config.accumulate):
            last = part == config.accumulate - 1
            with contextlib.nullcontext() if last else self._no_sync():
                loss = self._loss(_part(batch, part, rows), part, rows)
                self.scaler.scale(loss / config.accumulate).backward()
            losses.append(loss.detach())
        self._optimize()
        self.step += 1
        decay = self.target_decay(step)
        self._average(decay)
        return StepStats(self.step, torch.stack(losses).mean(), self.scales(step), decay)

    def check_finite(self) -> None:
        """Raise UserError when the last step's loss was not finite. Waits for the device."""
        if self._unchecked is None:
            return
        step, loss = self._unchecked
        self._unchecked = None
        if not torch.isfinite(loss):
            raise UserError(f"The loss is {float(loss)} at step {step}. {_REMEDY}")

    def check_weights(self) -> None:
        """Raise UserError when a weight is not finite; after averaged gradients, on all workers alike."""
        if not all(bool(torch.isfinite(weights).all()) for weights in self._parameters()):
            raise UserError(f"The weights are not finite after step {self.step}. {_REMEDY}")

    def averaged_weights(self, index: int = 0) -> dict[str, Tensor]:
        """Return the weights of average `index` by name, views of the live tensors."""
        names = [name for name, _ in self.student.network.named_parameters()]
        return dict(zip(names, self.averages[index], strict=True))

    def averaged_model(self, index: int = 0) -> ConsistencyModel:
        """Return a copy of the model with the weights of average `index`, in eval mode."""
        model = ConsistencyModel(self.spec).to(self.device).eval()
        model.network.load_state_dict(self.averaged_weights(index))
        return model

    def checkpoint(self) -> Checkpoint:
        """Return a copy, on the CPU, of all state: weights, target, averages, optimizer, step.

        Raises UserError when the loss or a weight is not finite.
        """
        self.check_finite()
        self.check_weights()
        tensors: dict[str, Tensor] = {}
        for group, weights in self._weight_groups().items():
            tensors.update({f"{group}/{name}": tensor for name, tensor in weights.items()})
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer/{index}/{name}": value for name, value in state.items()})
        copies = {name: _contiguous_copy(tensor) for name, tensor in tensors.items()}
        return Checkpoint(self.step, copies, {"scaler": self.scaler.state_dict()})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint. Raises UserError when it belongs to another network."""
        for group, weights in self._weight_groups().items():
            saved = checkpoint.group(group)
            if group == "student":
                load_weights(self.student.network, saved, checkpoint.source)
            elif set(saved) != set(weights):
                raise UserError(f"{checkpoint.source} has no {group}: it was trained with other settings.")
            else:
                for name, tensor in weights.items():
                    tensor.copy_(saved[name])
        self._restore_optimizer(checkpoint.group("optimizer"))
        self.scaler.load_state_dict(checkpoint.extra["scaler"])
        self.step = checkpoint.step

    def _restore_optimizer(self, saved: dict[str, Tensor]) -> None:
        """Fill the optimizer's state, each moment laid out in memory as its parameter is."""
        parameters = list(self.student.parameters())
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in saved.items():
            number, key = name.split("/")
            index = int(number)
            moment = tensor.shape == parameters[index].shape
            value = torch.empty_like(parameters[index]).copy_(tensor) if moment else tensor
            state.setdefault(index, {})[key] = value.detach()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _loss(self, batch: Batch, part: int, rows: int) -> Tensor:
        """Return the mean loss of one part of this worker's share."""
        config, step = self.config, self.step
        first = self.share.rank * rows * config.accumulate + part * rows
        positions = torch.arange(first, first + rows, device=self.device)
        x = self._clean_images(batch.images, positions)
        labels = batch.labels.to(self.device) if self.spec.classes else None
        t, s = self._times(positions)
        noise = normal(config.seed, step, positions, Purpose.NOISE, tuple(x.shape[1:]))
        x_t, x_s = training_pair(x, noise, t, s)
        self._seed_dropout(first)
        with (
            torch.no_grad(),
            self._autocast(),
        ):  # a context of its own: autocast caches casts without gradient
            f_s = (self.target or self.student)(x_s, s, labels)
        self._seed_dropout(first)
        with self._autocast():
            f_t = self.replica(x_t, t, labels)
        return consistency_loss(f_t, f_s, self.weight(t, s), self.distance).mean()

    def _clean_images(self, images: Tensor, positions: Tensor) -> Images:
        x = from_uint8(images.to(self.device, non_blocking=True))
        if not self.config.data.horizontal_flip:
            return x
        flip = uniform(self.config.seed, self.step, positions, Purpose.FLIP, (1,))[:, 0] < 0.5
        return torch.where(flip[:, None, None, None], x.flip(-1), x)

    def _times(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the pair of neighbouring times t > s of every sample, float32 (b,)."""
        config = self.config
        grid = _grid(self.scales(self.step), config.diffusion, config.schedule.rho, self.device)
        draws = uniform(config.seed, self.step, positions, Purpose.TIMES, (1,))[:, 0]
        index = self.proposal(grid, draws)
        return grid[index + 1].float(), grid[index].float()

    def _seed_dropout(self, first: int) -> None:
        """Give student and target the same dropout mask, whatever device draws it.

        first: position in the global batch of the part's first sample. Masks depend on how the batch is
        split: with dropout, 1 and N workers train alike but not the same.
        """
        if self.config.network.dropout:
            torch.manual_seed(derived_seed(self.config.seed, self.step, first, "dropout"))

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _PRECISIONS[self.config.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """Leave gradients on the worker until the last part of the batch."""
        no_sync = getattr(self.replica, "no_sync", contextlib.nullcontext)
        context: contextlib.AbstractContextManager[Any] = no_sync()
        return context

    def _optimize(self) -> None:
        if self.config.optimizer.gradient_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), self.config.optimizer.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _average(self, decay: float) -> None:
        current = self._parameters()
        if self.target is not None:
            update_average(list(self.target.network.parameters()), current, decay)
        for average, ema_decay in zip(self.averages, self.config.ema_decays, strict=True):
            update_average(average, current, ema_decay)

    def _parameters(self) -> list[Tensor]:
        return [p.detach() for p in self.student.network.parameters()]

    def _weight_groups(self) -> dict[str, dict[str, Tensor]]:
        groups = {"student": self.student.network.state_dict()}
        if self.target is not None:
            groups["target"] = self.target.network.state_dict()
        groups.update({f"ema{i}": self.averaged_weights(i) for i in range(len(self.averages))})
        return groups


def build_student(spec: ModelSpec, seed: int) -> ConsistencyModel:
    """Build a model whose initial weights are a function of the seed, leaving the global RNG alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "weights"))
        return ConsistencyModel(spec)


def _contiguous_copy(tensor: Tensor) -> Tensor:
    """Copy to the CPU, in the plain layout that files have (weights live with their channels last)."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _frozen_copy(student: ConsistencyModel, device: torch.device) -> ConsistencyModel:
    copy = ConsistencyModel(student.spec).to(device).requires_grad_(False)
    copy.load_state_dict(student.state_dict())
    return copy.train()  # the target sees the student's dropout mask


def _target_is_student(config: TrainConfig) -> bool:
    return config.schedule.target == "constant" and config.schedule.mu0 == 0


def _part(batch: Batch, part: int, rows: int) -> Batch:
    span = slice(part * rows, (part + 1) * rows)
    return Batch(batch.images[span], batch.labels[span])


@lru_cache(maxsize=8)
def _grid(n: int, diffusion: Any, rho: float, device: torch.device) -> Tensor:
    values = dataclasses.asdict(diffusion)
    return times.karras_times(n, t_min=values["t_min"], t_max=values["t_max"], rho=rho).to(device)
