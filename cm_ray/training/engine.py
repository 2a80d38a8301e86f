"""The training step of one worker: the networks, the loss, the optimizer and the averages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from cm_ray.core.draw import Draw
from cm_ray.core.ema import update_average
from cm_ray.core.guidance import guided_teacher
from cm_ray.core.noise import derived_seed
from cm_ray.core.types import Distance, Images, Labels
from cm_ray.errors import UserError
from cm_ray.networks.arithmetic import arithmetic
from cm_ray.networks.lpips_distance import on_device
from cm_ray.networks.model import Model, ModelSpec, load_weights
from cm_ray.networks.weight_names import differences
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import Checkpoint
from cm_ray.settings.choices import word_of
from cm_ray.training.arithmetic import compile_networks, to_device
from cm_ray.training.batch import Batch, Share, StepStats
from cm_ray.training.data_parallel import settle_buckets
from cm_ray.training.drawing import draw_step, dropped_labels
from cm_ray.training.loss_watch import REMEDY, LossWatch
from cm_ray.training.memory import step_in_memory
from cm_ray.training.optimizer import (
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
    restore_scaler,
)
from cm_ray.training.ordered_sum import MeanOfWorkers, OrderedMean
from cm_ray.training.students import build_student, contiguous_copy, frozen_copy
from cm_ray.training.target import student_of, target_of
from cm_ray.training.uncertainty import LossUncertainty


class Engine:
    """The training step of every method: the student learns to predict the aim of the method.

    Song et al. 2023, Algorithms 2 and 3; Karras et al. 2022; Salimans & Ho 2022, Algorithm 2. wrap:
    returns a data-parallel module of the student, such as DistributedDataParallel. The loss is the mean
    over the worker's share, so that the mean gradient of the workers is the gradient of the global batch.
    ordered: takes that mean instead, for numbers of workers that change. teacher: the model to distil; it is
    put in eval mode and is not clipped. initial: initial weights. All random numbers are a function of (seed,
    step, position in the global batch, purpose): an engine that is restored from a checkpoint trains the same
    weights as an uninterrupted one, on CPUs bit for bit. Rank 0 has all averages, others the first alone.
    """

    def __init__(
        self,
        config: Recipe,
        spec: ModelSpec,
        *,
        device: torch.device | str = "cpu",
        share: Share | None = None,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        distance: Distance | None = None,
        teacher: Model | None = None,
        initial: Mapping[str, Tensor] | None = None,
        ordered: Callable[[nn.Module], OrderedMean] | None = None,
    ) -> None:
        self.config, self.spec, self.share, self.device = config, spec, share or Share(), torch.device(device)
        self.student = build_student(spec, config.seed, initial).to(self.device)
        self.replica = wrap(self.student) if wrap else self.student
        self.uncertainty = LossUncertainty(config, self.device, wrap)
        self.trained = [*self.student.parameters(), *self.uncertainty.parameters()]
        mean = MeanOfWorkers((self.replica, self.uncertainty.replica), config.accumulate)
        self.gradients = ordered(self.uncertainty.beside(self.student)) if ordered else mean
        self.method, self.learning_rate = config.method, learning_rate(config)
        self.round_starts = self.method.halving.starts(config.steps) if self.method.halving else []
        self.distance = distance or on_device(self.method.distance, self.device, config.precision)
        self.target = frozen_copy(self.student).train() if self.method.has_target else None
        self.teacher = teacher.to(self.device).requires_grad_(False).eval() if teacher else None
        self._prepare(self.student, self.target, self.teacher)
        self.averages = self._fresh_averages()
        self.optimizer = build_optimizer(config, self.trained)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.step, self.losses = 0, LossWatch()
        if self.replica is not self.student:
            settle_buckets(self.replica, spec, self._rows(), self.device)

    def train(self, batches: Iterable[Batch]) -> Iterator[StepStats]:
        """Take steps until `config.steps` are done; yield after each of them.

        Raises UserError when a loss is not finite: maybe some steps later, but before the next checkpoint.
        """
        batches = iter(batches)
        while self.step < self.config.steps:
            stats = self.one_step(next(batches))
            self.losses.check(wait=False)
            self.losses.add(stats.step, stats.loss)
            yield stats
        self.check_finite()

    def one_step(self, batch: Batch) -> StepStats:
        """Take one optimizer step on this worker's share of the global batch."""
        step = self.step
        self._begin_round()
        self.uncertainty.before_step(self.student)
        with step_in_memory(self._rows()):
            loss = self.add_gradients(batch)
            self._optimize()
        self.update_averages(self.method.target_decay(step, self.config.steps))
        self.step += 1
        gauges = self.method.gauges(step, self.config.steps)
        return StepStats(self.step, loss, {**gauges, "learning_rate": self.learning_rate(step)})

    def add_gradients(self, batch: Batch) -> Tensor:
        """Add the gradient of the mean loss over this worker's share to the student's; return that loss.

        The share is divided into micro-batches. Raises ValueError on another number of images.
        """
        rows, gradients = self._rows(), self.gradients
        if len(batch.images) != rows * gradients.count:
            raise ValueError(f"expected {rows * gradients.count} images, got {len(batch.images)}")
        self.student.train()
        losses = []
        for index in range(gradients.count):
            with gradients.adding(index):
                loss = self._loss(batch.rows(index * rows, rows), index, rows)
                with arithmetic(self.config.precision, self.device, autocast=False):
                    self.scaler.scale(loss / gradients.divisor).backward()
            losses.append(loss.detach())
        return gradients.mean(losses)

    def update_averages(self, decay: float) -> None:
        """Update the target with `decay`, and all averages of the weights."""
        current = self._parameters()
        if self.target is not None:
            update_average(list(self.target.network.parameters()), current, decay)
        taken = self.config.averaged_steps(self.step + 1) - 1
        decays = self.config.averages.decays_at(taken)[: len(self.averages)]
        for average, of_step in zip(self.averages, decays, strict=True):
            update_average(average, current, of_step)

    def in_last_round(self) -> bool:
        """Return True if the last step belongs to the last round, or if the method has no rounds."""
        return not self.round_starts or self.step > self.round_starts[-2]

    def round_ended(self) -> bool:
        """Return True if the last step ended a round of progressive distillation."""
        return self.step in self.round_starts[1:]

    def check_finite(self) -> None:
        """Raise UserError when the loss of a finished step is not finite. Waits for the device."""
        self.losses.check(wait=True)

    def check_weights(self) -> None:
        """Raise UserError when a weight is not finite; all workers have the same weights."""
        if not all(bool(torch.isfinite(weights).all()) for weights in self._parameters()):
            raise UserError(f"The weights are not finite after step {self.step}. {REMEDY}")

    def averaged_weights(self, index: int = 0) -> dict[str, Tensor]:
        """Return the weights of average `index` by name; the tensors are not copied."""
        names = (name for name, _ in self.student.network.named_parameters())
        return dict(zip(names, self.averages[index], strict=True))

    def averaged_spec(self, index: int = 0) -> ModelSpec:
        """Return the specification of the model of average `index`, with the sampler of the current round."""
        sampler = self.config.own_sampler(self.sampling_steps())
        return dataclasses.replace(self.spec, sampler=sampler, **self.config.average_facts(self.step, index))

    def averaged_model(self, index: int = 0) -> Model:
        """Return a copy of the model with the weights of average `index`, in eval mode."""
        model = Model(self.averaged_spec(index)).to(self.device).eval()
        model.network.load_state_dict(self.averaged_weights(index))
        return model

    def checkpoint(self) -> Checkpoint:
        """Return a copy of all state on the CPU: weights, target, averages, optimizer, step.

        A teacher is included only if it was the student of an earlier round. Raises UserError when a loss
        or a weight is not finite.
        """
        self.check_finite()
        self.check_weights()
        tensors: dict[str, Tensor] = {}
        for group, weights in self._weight_groups().items():
            tensors.update({f"{group}/{name}": tensor for name, tensor in weights.items()})
        state = optimizer_tensors(self.optimizer)
        tensors.update({f"optimizer/{name}": tensor for name, tensor in state.items()})
        copies = {name: contiguous_copy(tensor) for name, tensor in tensors.items()}
        return Checkpoint(self.step, copies, {"scaler": self.scaler.state_dict()})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load all state from a checkpoint. Raises UserError when it belongs to another network or method."""
        self.step = checkpoint.step
        if self._teacher_was_student():
            self._make_teacher_of_student()
        for group, weights in self._weight_groups().items():
            saved = checkpoint.group(group)
            if group == "student":
                load_weights(self.student.network, saved, checkpoint.source)
            elif found := differences(weights, saved):
                wrong = f"another {group}: {found}" if saved else f"no {group}"
                raise UserError(f"{checkpoint.source} has {wrong}; give the settings of its training.")
            else:
                for name, tensor in weights.items():
                    tensor.copy_(saved[name])
        restore_optimizer(self.optimizer, self.trained, checkpoint.group("optimizer"))
        restore_scaler(self.scaler, checkpoint.extra.get("scaler", {}), checkpoint.source)

    def _rows(self) -> int:
        return self.config.batch_size // self.share.parts // self.config.accumulate

    def _loss(self, batch: Batch, index: int, rows: int) -> Tensor:
        """Return the mean loss of the micro-batch `index` of this worker's share."""
        first = (self.share.rank * self.gradients.count + index) * rows
        positions = torch.arange(first, first + rows, device=self.device)
        labels = None
        if self.spec.classes:
            labels = dropped_labels(self.config, self.step, to_device(batch.labels, self.device), positions)
        draw = draw_step(self.config, self.step, to_device(batch.images, self.device), positions)
        aim = self._aim(draw, labels, first)
        student = student_of(self.replica, draw, labels, partial(self._seed_dropout, first))
        return self.uncertainty(self.method.loss(student, aim, draw, self.distance), draw.t).mean()

    @torch.no_grad()
    def _aim(self, draw: Draw, labels: Labels | None, first: int) -> Images:
        """Return the aim of the method; the target has the student's dropout mask, the teacher no dropout."""
        plain = self.config.precision == "float32" and not self.config.compile
        seed, model = partial(self._seed_dropout, first), self.target or self.student
        target = target_of(model, draw, labels, seed, plain=plain)
        if self.method.needs_teacher and self.teacher is None:
            raise ValueError(f"method {word_of(self.method)} needs a teacher")
        learned = bool(self.round_starts) and self.step >= self.round_starts[1]
        scale = draw.student_scale if learned else draw.scale  # a former student is guided already
        return self.method.aim(draw, target, guided_teacher(self.teacher, labels, scale, draw.augment))

    def _seed_dropout(self, first: int) -> None:
        """Seed the dropout masks, so that student and target get the same mask on any device.

        first: position in the global batch of the micro-batch's first sample. Masks depend on the division of
        the batch: with dropout, 1 and N workers do not train the same weights.
        """
        if self.config.network.dropout:
            torch.manual_seed(derived_seed(self.config.seed, self.step, first, "dropout"))

    def _prepare(self, *models: Model | None) -> None:
        """Set the precision of the models, and compile their networks if the recipe says so."""
        for model in filter(None, models):
            model.precision = self.config.precision
        if self.config.compile:
            compile_networks([model.network for model in models if model], self.device)

    def _begin_round(self) -> None:
        """Start a further round: the student becomes the teacher; averages and optimizer are reset.

        Salimans & Ho 2022, Algorithm 2.
        """
        if self.step in self.round_starts[1:-1]:
            self._make_teacher_of_student()
            self.averages = self._fresh_averages()
            self.optimizer.state.clear()

    def _make_teacher_of_student(self) -> None:
        self.teacher = frozen_copy(self.student)
        self._prepare(self.teacher)

    def _teacher_was_student(self) -> bool:
        """Return True if the teacher of the last step was the student of an earlier round."""
        return bool(self.round_starts) and self.step > self.round_starts[1]

    def sampling_steps(self) -> int:
        """Return the sampling steps of the round of the last step; 0 without rounds."""
        halving = self.method.halving
        return halving(max(0, self.step - 1), self.config.steps) - 1 if halving else 0

    def _optimize(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        if self.config.optimizer.gradient_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained, self.config.optimizer.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _fresh_averages(self) -> list[list[Tensor]]:
        lengths = self.config.averages.lengths[: None if self.share.rank == 0 else 1]
        return [[p.clone() for p in self._parameters()] for _ in lengths]

    def _parameters(self) -> list[Tensor]:
        return [p.detach() for p in self.student.network.parameters()]

    def _weight_groups(self) -> dict[str, dict[str, Tensor]]:
        groups = {"student": self.student.network.state_dict(), **self.uncertainty.weight_groups()}
        if self.target is not None:
            groups["target"] = self.target.network.state_dict()
        if self.teacher is not None and self._teacher_was_student():
            groups["teacher"] = self.teacher.network.state_dict()
        groups.update({f"ema{i}": self.averaged_weights(i) for i in range(len(self.averages))})
        return groups
