"""The workers of a training on Ray Train."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray.train
import ray.train.collective
import torch
from ray.train.torch import get_device
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cm_ray.cluster.data.stream import batches
from cm_ray.cluster.runtime.connect import check_cuda, quiet_ray, user_error
from cm_ray.cluster.runtime.plan import WorkerPlan
from cm_ray.data.shards.manifest import Manifest
from cm_ray.evaluation.reference import Shards
from cm_ray.networks.model import ModelSpec
from cm_ray.own_code import carried, take
from cm_ray.recipes.recipe import Recipe
from cm_ray.remote.lease import Token
from cm_ray.remote.witness import Witness
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.remote_run import RemoteRun
from cm_ray.training.batch import Batch, Share
from cm_ray.training.engine import Engine
from cm_ray.training.loop import TrainingLoop
from cm_ray.training.memory import state_in_memory
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
    seen: tuple[Witness, ...] = ()
    """A file of every folder that all workers share."""
    token: Token | None = None
    """The right of rank 0 to write to the run's address, from which all workers read; None for a folder."""
    stoppable: bool = False
    """If True, the workers stop when the run's stop file exists."""
    own_code: dict[str, Any] = field(default_factory=carried)
    """The code of one's own that the driver has named."""


def work(loop: dict[str, Any]) -> None:
    """Train on one worker. A UserError of a Ray Data task is raised as the UserError itself."""
    task: TrainingTask = loop["task"]
    take(task.own_code)
    for witness in task.seen:
        witness.check()
    try:
        training = worker_loop(task)
        for _ in training.steps():
            pass
        training.run.published()
    except Exception as error:
        if sentence := user_error(error):
            raise sentence from None  # Ray's exceptions around it do not all travel
        raise


def worker_loop(task: TrainingTask) -> TrainingLoop:
    """Return the training loop of this worker of Ray Train."""
    quiet_ray()
    context = ray.train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    device = _device(task.plan)
    if device.type == "cpu":
        torch.set_num_threads(task.plan.threads)
    run = _run(task, share)
    with state_in_memory():
        engine = Engine(
            task.config,
            task.spec,
            device=device,
            share=share,
            wrap=partial(_data_parallel, device) if share.world > 1 else None,
            teacher=read_teacher(task.config, run),
            initial=read_initial(task.config, run),
        )
    return TrainingLoop(
        recipe=task.config,
        run=run,
        engine=engine,
        batches=partial(_batches, task, share),
        data=Shards.open(task.shards),
        communication=RayWorkers(share.world, device),
        stoppable=task.stoppable,
    )


def _run(task: TrainingTask, share: Share) -> RunDirectory:
    """Return the directory of the run: the shared one, or a copy on this node of what is at its address."""
    if task.token is None:
        return task.run
    return RemoteRun.opened(task.token.address, task.token if share.rank == 0 else None)


def _device(plan: WorkerPlan) -> torch.device:
    """Return the device that the plan says. Raises UserError when PyTorch does not have it here."""
    if not plan.use_gpu:
        return torch.device("cpu")
    check_cuda()
    device: torch.device = get_device()
    return device


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

    def __init__(self, world: int, device: torch.device) -> None:
        self.world, self.device = world, device

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

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor on the CPU over the workers; NCCL adds up on the GPUs."""
        if self.world == 1:
            return value
        there = value.to(self.device)
        torch.distributed.all_reduce(there)
        return there.cpu()

    def report(self, step: int) -> None:
        """Report the step of a new checkpoint to Ray Train."""
        ray.train.report({"step": step})

    def leaving_nodes(self) -> frozenset[str]:
        """Return the ids of the nodes that a cloud, or `ray drain-node`, has announced to take away."""
        info = ray.train.get_preemption_info()
        return frozenset(info.preempted_node_ids) if info else frozenset()


def _data_parallel(device: torch.device, module: nn.Module) -> nn.Module:
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,  # buffers are constants
    )
