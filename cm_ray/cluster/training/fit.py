"""The driver's part of a training: it starts the workers, and starts them again when some have died."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import (
    ControllerError,
    PreemptionError,
    TrainingFailedError,
    WorkerGroupError,
)

from cm_ray.cluster.runtime.connect import cause_of, user_error
from cm_ray.cluster.runtime.internals import NO_ROOM
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import DATA_CPUS, WorkerPlan, possible_plans
from cm_ray.cluster.runtime.waiting import LOST_NODES_S, SOON_S, planned_when_nodes_suffice, reserved
from cm_ray.cluster.training.elastic import RELEASED_S, growing, roomiest
from cm_ray.cluster.training.interconnect import torch_config
from cm_ray.cluster.training.workers import TrainingTask, work
from cm_ray.data.shards.manifest import MANIFEST
from cm_ray.errors import UserError, setting
from cm_ray.phases import phase
from cm_ray.recipes.sections import ClusterSettings
from cm_ray.remote.witness import Witness, witnessed
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.console import say
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.resources import Resources
from cm_ray.settings.duration import seconds_of


def plan_training(config: ClusterSettings, before: Resources | None, least_wait_s: float = 0.0) -> WorkerPlan:
    """Return a plan of the workers, on the device that the run began on, when there are nodes for it.

    Nodes are waited for as long as the settings say, and `least_wait_s` at least; of a range of workers, for
    those of the fewest. Raises UserError when they do not come.
    """
    return _plans(config, before, least_wait_s)[0]


def _plans(config: ClusterSettings, before: Resources | None, least_wait_s: float) -> list[WorkerPlan]:
    """Return the plans of all numbers of workers that there are nodes for, the largest first."""
    limit_s = max(least_wait_s, seconds_of(config.wait_for_nodes))
    return planned_when_nodes_suffice(lambda: possible_plans(config, node_resources(), before), limit_s)


def fit(task: TrainingTask) -> WorkerPlan:
    """Train on the cluster to the last step, from the last checkpoint if there is one; return the last plan.

    Workers are started again when some have died, up to `max_failures` times without a new checkpoint, and
    when there is room for more of them, if there may be more. A stoppable task ends at the next row of the
    log after the run's stop file has been created. Raises UserError when the training cannot continue: bad
    data, a loss that is not finite, a full disk, too many failures, nodes that do not come back, or folders
    that they do not share.
    """
    shards = Witness.of(task.shards / MANIFEST)
    if task.run.copied is not None:
        return _fit(replace(task, seen=(shards,)))
    with witnessed(task.run.root) as seen:
        return _fit(replace(task, seen=(seen, shards)))


def _fit(task: TrainingTask) -> WorkerPlan:
    cluster, failures, reached = task.config.cluster, 0, _last_step(task)
    patience_s = SOON_S
    while True:
        try:
            task, patience_s = _with_room(task, patience_s), SOON_S
            _attempt(task)
            if not _goes_on(task):
                return task.plan
            failures, reached, patience_s = 0, _last_step(task), RELEASED_S
            say(f"there is room for more workers; the training goes on from step {reached}")
        except TrainingFailedError as error:
            if sentence := _sentence_of(error):
                raise sentence from error
            before, reached = reached, _last_step(task)
            failures = (0 if reached > before else failures) + _counts(error)
            if failures > cluster.max_failures:
                raise UserError(
                    f"The training failed {failures} times without a new checkpoint, last with: "
                    f"{_cause(error)}; {_advice(error)}run the same command again to resume from step "
                    f"{reached}."
                ) from error
            say(f"workers died ({_cause(error)}); the training goes on from step {reached}")


def _with_room(task: TrainingTask, patience_s: float) -> TrainingTask:
    """Return the task with the plan of as many workers as nodes and free resources are there for."""
    plans = _plans(task.config.cluster, task.plan.resources, LOST_NODES_S)
    return replace(task, plan=roomiest(plans, _limit_s(task), patience_s))


def _goes_on(task: TrainingTask) -> bool:
    """Return True if the workers have ended to go on with more of them."""
    workers, done = task.plan.workers, _last_step(task) >= task.config.steps
    return workers is not None and not done and not task.run.stop_file.exists()


def _attempt(task: TrainingTask) -> None:
    """Train until the end or until a worker dies. Ray Train starts nothing again by itself."""
    plan, limit_s = task.plan, _limit_s(task)
    with reserved([{"CPU": DATA_CPUS}] * plan.num_workers, plan.strategy, limit_s) as readers:
        several = "s" if plan.num_workers > 1 else ""
        phase(f"starting {plan.num_workers} worker{several}; the first step follows")
        with _lent(replace(task, readers=readers)) as lent, growing(lent) as grown, _keyboard_interrupts():
            _trainer(grown).fit()


def _limit_s(task: TrainingTask) -> float:
    """Return the seconds for which resources that other jobs use are waited for."""
    return seconds_of(task.config.cluster.wait_for_nodes) or math.inf


@contextlib.contextmanager
def _lent(task: TrainingTask) -> Iterator[TrainingTask]:
    """Yield the task as the workers get it: with the right to write to the address of the run, if it has one.

    Workers of an earlier attempt that still live lose theirs.
    """
    if task.run.copied is None:
        yield task
        return
    with task.run.copied.lent() as token:
        yield replace(task, run=RunDirectory(task.run.root), token=token)


def _trainer(task: TrainingTask) -> TorchTrainer:
    plan = task.plan
    return TorchTrainer(
        work,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=plan.num_workers,
            use_gpu=plan.use_gpu,
            resources_per_worker=plan.bundle,
            placement_strategy=plan.strategy,
        ),
        torch_config=torch_config(plan.use_gpu),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(task.run.root),
            failure_config=FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
        ),
    )


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


def _last_step(task: TrainingTask) -> int:
    """Return the step of the last checkpoint; 0 before the first."""
    steps = CheckpointStore(task.run.checkpoints, task.config.checkpoint.keep).steps()
    return steps[-1] if steps else 0


def _counts(error: TrainingFailedError) -> bool:
    """Return True for failures of the work: not for nodes that a cloud takes back, or that others use."""
    inner = error.controller_failure if isinstance(error, ControllerError) else error
    return not isinstance(error, PreemptionError) and type(inner).__name__ not in NO_ROOM


def _failures(error: TrainingFailedError) -> list[Exception]:
    """Return the exceptions of the workers, or of Ray Train's controller."""
    if isinstance(error, WorkerGroupError):
        return list(error.worker_failures.values())
    return [error.controller_failure if isinstance(error, ControllerError) else error]


def _sentence_of(error: TrainingFailedError) -> UserError | None:
    """Return the UserError of a worker, if there is one."""
    return next(filter(None, map(user_error, _failures(error))), None)


def _cause(error: TrainingFailedError) -> str:
    return cause_of(_failures(error)[0])


def _advice(error: TrainingFailedError) -> str:
    """Return what to change first: where Ray has ended workers because a node's memory was full."""
    if not any(isinstance(failure, ray.exceptions.OutOfMemoryError) for failure in _failures(error)):
        return ""
    return f"set {setting('data.cache')} to stream or raise {setting('accumulate')}, and "
