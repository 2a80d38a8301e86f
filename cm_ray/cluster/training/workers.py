"""Training workers on Ray Train, and the driver's function that starts them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray.train
import ray.train.collective
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cm_ray.cluster.data.stream import batches
from cm_ray.cluster.runtime.connect import WorkerPlan, quiet_ray, user_error
from cm_ray.data.shards import Manifest
from cm_ray.errors import UserError
from cm_ray.evaluation.reference import Shards
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import read_json, remove, write_json
from cm_ray.training.batch import Batch, Share
from cm_ray.training.engine import Engine
from cm_ray.training.loop import TrainingLoop
from cm_ray.training.starting_models import read_initial, read_teacher

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTask:
    """Arguments of a training worker."""

    config: Recipe
    spec: ModelSpec
    plan: WorkerPlan
    run: RunDirectory
    shards: Path
    stoppable: bool = False
    """If True, the workers stop when the run's stop file exists."""


def fit(task: TrainingTask) -> None:
    """Train on the cluster to the last step, from the last checkpoint if there is one.

    Ray Train restarts the workers up to `max_failures` times after one has died. A stoppable task ends at the
    next row of the log after the run's stop file has been created. Raises UserError when the training cannot
    continue: bad data, a loss that is not finite, a full disk or too many failures.
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
        with _keyboard_interrupts():
            trainer.fit()
    except TrainingFailedError as error:
        _raise_worker_error(task.run)
        raise UserError(
            f"The training failed more than {task.config.cluster.max_failures} times, last with: "
            f"{_last_line(error)}; run the same command again to resume from the last checkpoint."
        ) from error
    _raise_worker_error(task.run)


@contextlib.contextmanager
def _keyboard_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C: Ray Train's handler ends the process and outlives the training."""
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


def _resources(plan: WorkerPlan) -> dict[str, float]:
    resources = {"CPU": plan.cpus_per_worker}
    return resources | ({"GPU": plan.gpus_per_worker} if plan.use_gpu else {})


def _work(loop: dict[str, Any]) -> None:
    """Train on one worker. A UserError is written to the run directory, and the training is not retried."""
    task: TrainingTask = loop["task"]
    failed = ray.train.collective.broadcast_from_rank_zero(task.run.error_file.exists())
    if failed:
        return
    try:
        for _ in worker_loop(task).steps():
            pass
    except Exception as error:
        if sentence := user_error(error):
            write_json(task.run.error_file, {"error": sentence.marked})
        raise


def _raise_worker_error(run: RunDirectory) -> None:
    """Raise the UserError that a worker has written to the run directory, if there is one."""
    if run.error_file.exists():
        sentence = read_json(run.error_file)["error"]
        remove(run.error_file)
        raise UserError(sentence)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


def worker_loop(task: TrainingTask) -> TrainingLoop:
    """Return the training loop of this worker of Ray Train."""
    quiet_ray()
    context = ray.train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(task.plan.threads)
    engine = Engine(
        task.config,
        task.spec,
        device=device,
        share=share,
        wrap=partial(_data_parallel, device) if share.world > 1 else None,
        teacher=read_teacher(task.config, task.run),
        initial=read_initial(task.config, task.run),
    )
    return TrainingLoop(
        recipe=task.config,
        run=task.run,
        engine=engine,
        batches=partial(_batches, task, share),
        data=Shards.open(task.shards),
        communication=RayWorkers(share.world),
        stoppable=task.stoppable,
    )


def _batches(task: TrainingTask, share: Share, start_step: int) -> Iterable[Batch]:
    return batches(
        task.shards,
        Manifest.load(task.shards),
        cache=task.config.data.cache,
        seed=task.config.seed,
        batch_size=task.config.batch_size,
        share=share,
        start_step=start_step,
    )


class RayWorkers:
    """Communication between the workers of Ray Train."""

    def __init__(self, world: int) -> None:
        self.world = world

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every worker."""
        received: T = ray.train.collective.broadcast_from_rank_zero(value)
        return received

    def barrier(self) -> None:
        """Wait until every worker has reached this call."""
        ray.train.collective.barrier()

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a scalar over the workers."""
        if self.world > 1:
            torch.distributed.all_reduce(value)
        return value / self.world

    def report(self, step: int) -> None:
        """Report the step of a new checkpoint to Ray Train."""
        ray.train.report({"step": step})


def _data_parallel(device: torch.device, module: nn.Module) -> nn.Module:
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,  # buffers are constants
    )
