"""A training whose number of workers may change: what there is room for, and the wish to take more of it.

Ray Train's own range of workers is not used: it takes any number in it, counts whole resources alone, and
ends running workers in the middle of their steps when resources appear. Here they make a checkpoint first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import Shortage, WorkerPlan, possible_plans
from cm_ray.cluster.runtime.waiting import SOON_S, are_free, reserved
from cm_ray.cluster.training.workers import TrainingTask

EVERY_S = 30.0
"""Seconds between two looks for room, and the shortest time between two starts because of it."""


class Wish:
    """An actor by which the command tells the workers that there is room for more of them."""

    def __init__(self) -> None:
        self._made = self._heard = False

    def make(self) -> None:
        """Wish for more workers."""
        self._made = True

    def is_made(self) -> bool:
        """Return True if more workers are wished for; the workers ask when they train."""
        self._heard = True
        return self._made

    def is_heard(self) -> bool:
        """Return True if workers have asked: what they need is theirs, and not free any more."""
        return self._heard


RELEASED_S = 20.0
"""Seconds in which what ended workers had becomes free again."""


def roomiest(plans: Sequence[WorkerPlan], limit_s: float, patience_s: float = SOON_S) -> WorkerPlan:
    """Return the first of some plans, from large to small, whose resources are free; wait for the last one's.

    What other jobs take afterwards is waited for by the next attempt. limit_s: seconds to wait at most.
    patience_s: seconds to wait for the largest one. Raises UserError when there is room for none.
    """
    *larger, least = plans
    for plan in larger:
        if are_free([plan.whole_bundle] * plan.num_workers, plan.strategy, patience_s):
            return plan
        patience_s = SOON_S
    with reserved([least.whole_bundle] * least.num_workers, least.strategy, limit_s):
        return least


@contextlib.contextmanager
def growing(task: TrainingTask) -> Iterator[TrainingTask]:
    """Yield the task, with a wish that is made as soon as more workers have room, if there may be more."""
    workers = task.plan.workers
    if workers is None or task.plan.num_workers == workers.most:
        yield task
        return
    wish: Any = ray.remote(num_cpus=0)(Wish).remote()
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(task, wish, ended), daemon=True)
    watch.start()
    try:
        yield replace(task, wish=wish)
    finally:
        ended.set()
        watch.join()
        ray.kill(wish)


def _watch(task: TrainingTask, wish: Any, ended: threading.Event) -> None:
    """Make the wish when there is room, and end."""
    while not ended.wait(EVERY_S):
        with contextlib.suppress(RayError, Shortage):  # nodes come and go
            if ray.get(wish.is_heard.remote()) and _has_room(task):
                ray.get(wish.make.remote())
                return


def _has_room(task: TrainingTask) -> bool:
    """Return True if the workers that a larger number needs beside the running ones have room."""
    now = task.plan
    for plan in possible_plans(task.config.cluster, node_resources(), now.resources):
        more = plan.num_workers - now.num_workers
        if more > 0 and are_free([plan.whole_bundle] * more, plan.strategy):
            return True
    return False
