"""The workers of a training on Ray Train."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray.train
import ray.train.collective
import torch
from ray.train.torch import get_device
from ray.util.placement_group import PlacementGroup
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cm_ray.cluster.data.stream import batches, reading_within
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
from cm_ray.training.ordered_sum import OrderedMean, total_of_workers
from cm_ray.training.read_once import read_starting_models

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
    readers: PlacementGroup | None = None
    """The resources of the tasks that read for the workers, a bundle for each."""
    wish: Any = None
    """The actor that says when there is room for more workers; None where there cannot be more."""
    own_code: dict[str, Any] = field(default_factory=carried)
    """The code of one's own that the driver has named."""


def work(loop: dict[str, Any]) -> None:
    """Train on one worker. A UserError of a Ray Data task is raised as the UserError itself."""
    task: TrainingTask = loop["task"]
    take(task.own_code)
    for witness in task.seen:
        witness.check()
    rank = ray.train.get_context().get_world_rank()
    try:
        with reading_within(task.readers, rank) if task.readers else contextlib.nullcontext():
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
    workers = task.plan.workers
    most = workers.most if workers else 0
    share = Share(context.get_world_rank(), context.get_world_size(), most)
    device = _device(task.plan)
    if device.type == "cpu":
        torch.set_num_threads(task.plan.threads)
    run = _run(task, share)
    levels = workers.levels_above(share.world) if workers else ()
    communication = RayWorkers(share, device, levels, task.wish)
    with state_in_memory():
        teacher, initial = read_starting_models(task.config, run, communication)
        engine = Engine(
            task.config,
            task.spec,
            device=device,
            share=share,
            wrap=_wrap(task, share, device, communication),
            ordered=_ordered(task, share),
            teacher=teacher,
            initial=initial,
        )
    return TrainingLoop(
        recipe=task.config,
        run=run,
        engine=engine,
        batches=partial(_batches, task, share),
        data=Shards.open(task.shards),
        communication=communication,
        stoppable=task.stoppable,
    )


def _run(task: TrainingTask, share: Share) -> RunDirectory:
    """Return the directory of the run: the shared one, or this worker's own for the address of the run.

    Rank 0's is a copy of what is there; nothing is copied for the others, which read nothing of the run.
    """
    if task.token is None:
        return task.run
    if share.rank > 0:
        return RemoteRun.empty(task.token.address)
    return RemoteRun.opened(task.token.address, task.token)


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

    def __init__(
        self, share: Share, device: torch.device, levels: Sequence[int] = (), wish: Any = None
    ) -> None:
        """levels: of the tree in whose order numbers are added up; () for the order of PyTorch."""
        self.rank, self.world, self.device = share.rank, share.world, device
        self.levels, self.wish = levels, wish

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every worker."""
        received: T = ray.train.collective.broadcast_from_rank_zero(value)
        return received

    def fill(self, tensor: torch.Tensor) -> None:
        """Fill a contiguous tensor on the CPU with rank 0's; NCCL sends it from GPU to GPU."""
        there = tensor.to(self.device)
        torch.distributed.broadcast(there, src=0)
        if there is not tensor:
            tensor.copy_(there)

    def barrier(self) -> None:
        """Wait until every worker has reached this call."""
        ray.train.collective.barrier()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of a vector over the workers."""
        if self.world > 1 and self.levels:
            values = total_of_workers(values, self.levels)
        elif self.world > 1:
            torch.distributed.all_reduce(values)
        return values / self.world

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

    def has_room(self) -> bool:
        """Return True, on every worker, if rank 0 hears of the wish for more workers."""
        return self.wish is not None and self.broadcast(self.rank == 0 and _is_made(self.wish))

    def leaving_nodes(self) -> frozenset[str]:
        """Return the ids of the nodes that a cloud, or `ray drain-node`, has announced to take away."""
        info = ray.train.get_preemption_info()
        return frozenset(info.preempted_node_ids) if info else frozenset()


def _is_made(wish: Any) -> bool:
    """Return True if the wish is made; False if its actor has died, with the command or its node."""
    try:
        return bool(ray.get(wish.is_made.remote()))
    except ray.exceptions.RayError:
        return False


def _wrap(
    task: TrainingTask, share: Share, device: torch.device, communication: RayWorkers
) -> Callable[[nn.Module], nn.Module] | None:
    """Return what gives the students of all workers the same weights, and takes the mean of gradients."""
    if share.world == 1:
        return None
    return partial(_alike, communication) if task.plan.workers else partial(_data_parallel, device)


def _ordered(task: TrainingTask, share: Share) -> Callable[[nn.Module], OrderedMean] | None:
    """Return what takes the mean of gradients where the number of workers may change."""
    if task.plan.workers is None:
        return None
    return partial(
        OrderedMean,
        workers=task.plan.workers,
        accumulate=task.config.accumulate,
        share=share,
        total=total_of_workers,
    )


def _alike(communication: RayWorkers, module: nn.Module) -> nn.Module:
    """Return the module with rank 0's weights, which CPUs of another kind may have drawn otherwise."""
    with torch.no_grad():
        for parameter in module.parameters():
            weights = parameter.cpu().contiguous()
            communication.fill(weights)
            parameter.copy_(weights)
    return module


def _data_parallel(device: torch.device, module: nn.Module) -> nn.Module:
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,  # buffers are constants
    )
