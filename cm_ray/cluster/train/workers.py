"""Ray Train: the workers that run the engine, and the driver that starts and watches them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cm_ray.cluster.data.stream import batches
from cm_ray.cluster.runtime.connect import Plan, quiet_ray, user_error
from cm_ray.data.shards import Manifest
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec, save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import Checkpoint, CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.scoring.while_training import Evaluator
from cm_ray.storage.files import read_json, remove, write_json
from cm_ray.training.engine import Engine, Share, StepStats
from cm_ray.training.starting_models import read_initial, read_teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """All that a worker needs to know."""

    config: Recipe
    spec: ModelSpec
    plan: Plan
    run: RunDirectory
    shards: Path
    stoppable: bool = False
    """Whether the run's stop file is looked for."""


def fit(task: Task) -> None:
    """Train to the last step on the cluster, going on from the last checkpoint if there is one.

    A worker that dies is replaced, `max_failures` times. A stoppable task ends at the next row of the log
    when the run's stop file comes to be there. Raises UserError when the training cannot go on: bad data, a
    loss that is not finite, a full disk, too many deaths.
    """
    remove(task.run.error_file)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=task.plan.num_workers,
            use_gpu=task.plan.use_gpu,
            resources_per_worker=_resources(task.plan),
        ),
        torch_config=TorchConfig(backend="nccl" if task.plan.use_gpu else "gloo"),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(task.run.root),
            failure_config=FailureConfig(max_failures=task.config.cluster.max_failures),
        ),
    )
    try:
        with _interrupts_are_ours():
            trainer.fit()
    except TrainingFailedError as error:
        _raise_told_error(task.run)
        raise UserError(
            f"The training failed more than {task.config.cluster.max_failures} times, last with: "
            f"{_last_line(error)}; the same command goes on from the last checkpoint."
        ) from error
    _raise_told_error(task.run)


@contextlib.contextmanager
def _interrupts_are_ours() -> Iterator[None]:
    """Make a KeyboardInterrupt of Ctrl-C again: Ray Train ends the process instead, and goes on to, later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, before)


def _resources(plan: Plan) -> dict[str, float]:
    resources = {"CPU": plan.cpus_per_worker}
    return resources | ({"GPU": plan.gpus_per_worker} if plan.use_gpu else {})


def _work(loop: dict[str, Any]) -> None:
    """Train on one worker. A user error is told through the run directory and not tried again."""
    task: Task = loop["task"]
    told = ray.train.collective.broadcast_from_rank_zero(task.run.error_file.exists())
    if told:
        return
    try:
        Worker(task).train()
    except Exception as error:
        if sentence := user_error(error):
            write_json(task.run.error_file, {"error": str(sentence)})
        raise


def _raise_told_error(run: RunDirectory) -> None:
    if run.error_file.exists():
        sentence = read_json(run.error_file)["error"]
        remove(run.error_file)
        raise UserError(sentence)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


class Worker:
    """One of the workers; rank 0 also keeps the log, the checkpoints and the scores."""

    def __init__(self, task: Task) -> None:
        quiet_ray()
        context = ray.train.get_context()
        self.task, self.config = task, task.config
        self.share = Share(context.get_world_rank(), context.get_world_size())
        self.device = get_device()
        if self.device.type == "cpu":
            torch.set_num_threads(task.plan.threads)
        wrap = self._data_parallel if self.share.world > 1 else None
        self.engine = Engine(
            self.config,
            task.spec,
            device=self.device,
            share=self.share,
            wrap=wrap,
            teacher=read_teacher(self.config, task.run),
            initial=read_initial(self.config, task.run),
        )
        self.store = CheckpointStore(task.run.checkpoints, self.config.checkpoint.keep)
        self.evaluator = Evaluator(self.config, task.shards, self.device) if self.share.rank == 0 else None

    def train(self) -> None:
        """Train from the last checkpoint to the last step."""
        self._resume()
        manifest = Manifest.load(self.task.shards)
        stream = batches(
            self.task.shards,
            manifest,
            cache=self.config.data.cache,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            share=self.share,
            start_step=self.engine.step,
        )
        log = _Log(self.task.run, self.config, self.engine.step)
        try:
            for stats in self.engine.train(stream):
                log.add(stats)
                if self.engine.round_ended() and self.share.rank == 0:
                    self._save_round()
                if self._due(stats.step, self.config.log_every) or self._checkpoint_due(stats.step):
                    log.write(stats, self.share)
                    if self._asked_to_stop():
                        break
                if self._checkpoint_due(stats.step):
                    self._checkpoint(stats.step)
                    log.go_on()
        finally:
            self.store.close()

    def _asked_to_stop(self) -> bool:
        """Tell what rank 0 sees, on every rank: all of them stop at the same step."""
        if not self.task.stoppable:
            return False
        return bool(ray.train.collective.broadcast_from_rank_zero(self.task.run.stop_file.exists()))

    def _resume(self) -> None:
        """Load the checkpoint that rank 0 sees as the last one."""
        steps = self.store.steps()
        step = ray.train.collective.broadcast_from_rank_zero(steps[-1] if steps else 0)
        if step:
            self.engine.restore(self.store.load(step))
        if self.share.rank == 0:
            self.store.clean()
            self.task.run.forget_metrics_after(step)
            self.store.forget_after(step)
            scored = {row["step"] for row in self.task.run.read_metrics() if "scores" in row}
            if step and self._due(step, self.config.evaluation.every) and step not in scored:
                self._evaluate(step)  # killed between the checkpoint and its score
        ray.train.collective.barrier()

    def _due(self, step: int, every: int) -> bool:
        return step == self.config.steps or (every > 0 and step % every == 0)

    def _checkpoint_due(self, step: int) -> bool:
        return self._due(step, self.config.checkpoint.every)

    def _checkpoint(self, step: int) -> None:
        """Save on rank 0, and tell Ray Train; a report is a barrier, so every rank reports."""
        if self.share.rank == 0:
            checkpoint: Checkpoint = self.engine.checkpoint()
            self.store.save(checkpoint)
            if self.evaluator and self._due(step, self.config.evaluation.every):
                self._evaluate(step)
            if step == self.config.steps:
                self.store.wait()
        else:
            self.engine.check_finite()
            self.engine.check_weights()
        ray.train.report({"step": step})

    def _save_round(self) -> None:
        """Keep the model of a round of progressive distillation: it has its own number of steps."""
        self.engine.check_finite()
        self.engine.check_weights()
        spec = self.engine.averaged_spec()
        folder = self.task.run.rounds / spec.sampler.partition(":")[2]
        remove(folder)  # a run that was killed here does the round's end again
        save_model(
            folder, spec, {name: weights.cpu() for name, weights in self.engine.averaged_weights().items()}
        )

    def _evaluate(self, step: int) -> None:
        assert self.evaluator is not None
        model = self.engine.averaged_model()
        scores = self.evaluator.evaluate(model, step, self.task.run.samples)
        self.store.wait()  # the best checkpoint is named only when it is there
        if scores and self.engine.in_last_round():  # another round's model takes another number of steps
            self.store.offer_best(step, scores[0])
        self.task.run.append_metrics({"step": step, "scores": [score.to_row() for score in scores]})

    def _data_parallel(self, module: nn.Module) -> nn.Module:
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            module,
            device_ids=devices,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,  # they are constants
        )


class _Log:
    """Rows of metrics.jsonl: the mean loss since the last row, over all workers, and the speed."""

    def __init__(self, run: RunDirectory, config: Recipe, step: int) -> None:
        self.run, self.config = run, config
        self.losses: list[torch.Tensor] = []
        rows = [row for row in run.read_metrics() if "seconds" in row]
        self.seconds = rows[-1]["seconds"] if rows else 0.0
        self.since = self.went_on = time.perf_counter()

    def go_on(self) -> None:
        """Begin to measure the speed again: what came before (a checkpoint, scores) is no step."""
        self.went_on = time.perf_counter()

    def add(self, stats: StepStats) -> None:
        """Remember a step."""
        self.losses.append(stats.loss)

    def write(self, stats: StepStats, share: Share) -> None:
        """Average over steps and workers; rank 0 writes the row."""
        loss = torch.stack(self.losses).mean()
        if share.world > 1:
            torch.distributed.all_reduce(loss)
        now = time.perf_counter()
        speed = len(self.losses) * self.config.batch_size / (now - self.went_on)
        self.seconds += now - self.since
        self.losses, self.since, self.went_on = [], now, now
        if share.rank == 0:
            self.run.append_metrics(
                {
                    "step": stats.step,
                    "loss": float(loss) / share.world,
                    **stats.gauges,
                    "images_per_s": round(speed, 1),
                    "seconds": round(self.seconds, 3),
                }
            )
