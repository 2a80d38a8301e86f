"""Supervision of a pool's actors: they get tasks, and are replaced when they or their nodes die.

Ray restarts actors and repeats tasks a fixed number of times, and spends all of it on refused connections in
the seconds in which a node is dead and Ray does not know yet. So Ray restarts nothing here: a task of an
actor that died goes back to the front of the queue, and a new actor takes the place of the dead one.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from cm_ray.cluster.runtime.connect import cause_of
from cm_ray.cluster.runtime.nodes import live_nodes
from cm_ray.cluster.runtime.waiting import EVERY_S, LOST_NODES_S, span
from cm_ray.errors import UserError
from cm_ray.runs.console import say

Submit: TypeAlias = Callable[[Any, Any], Any]
"""A function that gives a task to an actor and returns the reference of its result."""

MOST_DEATHS_IN_A_ROW = 3
"""Deaths of actors at the same place without a finished task, or during the same task, before it is given up.
Deaths of nodes are not counted."""
MOST_DEATHS = 10
"""Deaths for each actor of the pool, in all. Deaths of nodes are not counted."""
_TASKS_EACH = 2
"""Tasks that an actor has at a time, so that it never waits for the next one."""
_PATIENCE_S = 20
"""Seconds without a free resource before a message is shown."""
_DEATHS = (ActorDiedError, OutOfMemoryError, NodeDiedError, WorkerCrashedError)
_LOSSES = (ActorUnavailableError, ObjectLostError, *_DEATHS)
"""Errors after which the result of a task will never come: the task has to be repeated."""


@dataclass(slots=True, eq=False)
class _Place:
    """A place in the pool, which is taken by one actor after another."""

    actor: Any
    node: str = ""
    """Id of the actor's node; empty until the actor has started."""
    ready: bool = False
    deaths: int = 0
    """Deaths since an actor of this place last finished a task."""


@dataclass(frozen=True, slots=True)
class _Running:
    """A task of an actor."""

    number: int
    place: _Place
    actor: Any
    node: str


class Supervisor:
    """The actors of a pool. Their class has a method `started` that returns the id of its node."""

    def __init__(
        self,
        start: Callable[[], Any],
        count: int,
        has_room: Callable[[], bool] = lambda: True,
        limit_s: float = LOST_NODES_S,
    ) -> None:
        """Start `count` actors by the function `start`; each works as soon as the cluster has room for it.

        has_room: tells whether any node is large enough for an actor.  limit_s: seconds to wait for one.
        """
        self._start, self._count = start, count
        self._has_room, self._limit_s = has_room, limit_s
        self._places = [_Place(start()) for _ in range(count)]
        self._starting: dict[Any, tuple[_Place, Any]] = {}
        self._deaths = 0
        self._told: set[str] = set()
        for place in self._places:
            self._call(place)

    @property
    def actors(self) -> list[Any]:
        """The actors, including those that have not started."""
        return [place.actor for place in self._places]

    def end(self) -> None:
        """End all actors."""
        for actor in self.actors:
            ray.kill(actor)

    def finished(self, submit: Submit, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the number and the result of every task as it finishes.

        Raises the error of a task, and UserError when actors die too often or no node is left for them.
        """
        waiting = deque(range(len(tasks)))
        running: dict[Any, _Running] = {}
        blamed: Counter[int] = Counter()
        while waiting or running:
            while waiting and (place := self._idle(running.values(), blamed, blamed[waiting[0]] > 0)):
                number = waiting.popleft()
                reference = submit(place.actor, tasks[number])
                running[reference] = _Running(number, place, place.actor, place.node)
            for reference in self._wait(running):
                if reference in self._starting:
                    self._greet(reference)
                    continue
                task = running.pop(reference)
                try:
                    result = ray.get(reference)
                except _LOSSES as error:
                    waiting.appendleft(task.number)
                    blamed[task.number] += self._is_to_blame(task, error)
                    _check_task(blamed[task.number], error)
                    continue
                task.place.deaths = 0
                yield task.number, result

    def _idle(self, running: Iterable[_Running], blamed: Counter[int], alone: bool) -> _Place | None:
        """Return the ready place with the fewest tasks; None when no place can take one more.

        A task that was lost with an actor is repeated `alone`: the next death tells which task it was.
        """
        busy: Counter[int] = Counter()
        for task in running:
            if task.actor is task.place.actor:
                busy[id(task.place)] += _TASKS_EACH if blamed[task.number] else 1
        most = 0 if alone else _TASKS_EACH - 1
        ready = [place for place in self._places if place.ready and busy[id(place)] <= most]
        return min(ready, key=lambda place: busy[id(place)], default=None)

    def _wait(self, running: Iterable[Any]) -> list[Any]:
        """Return the references of finished tasks or started actors; say every minute that no actor starts.

        Raises UserError when no node has been large enough for an actor for too long.
        """
        references = [*self._starting, *running]
        idle = len(references) == len(self._starting)
        lacked_since, timeout = math.inf, float(_PATIENCE_S)
        while not (done := ray.wait(references, num_returns=1, timeout=timeout if idle else None)[0]):
            now, timeout = time.monotonic(), EVERY_S
            lacked_since = math.inf if self._has_room() else min(lacked_since, now)
            if now - lacked_since > self._limit_s:
                raise UserError(
                    f"No node has had room for an actor for {span(self._limit_s)}; add nodes, "
                    "and run the same command again."
                )
            why = "other jobs of the cluster use them" if lacked_since == math.inf else "nodes are missing"
            say(f"waiting for resources for {len(self._starting)} actors; {why}")
        return list(done)

    def _call(self, place: _Place) -> None:
        """Ask the actor of a place to answer as soon as it can, unless it has been asked."""
        if (place, place.actor) not in self._starting.values():
            place.ready = False
            self._starting[place.actor.started.remote()] = place, place.actor

    def _greet(self, reference: Any) -> None:
        """Take the answer of an actor: it has started, has died, or cannot be reached.

        An actor that could not be reached may have been replaced before it answers: then nobody waits for it.
        """
        place, actor = self._starting.pop(reference)
        if actor is not place.actor or place not in self._places:
            return
        try:
            place.node = ray.get(reference)
            place.ready = True
        except _DEATHS as error:
            self._bury(place, error)
        except ActorUnavailableError:
            self._call(place)  # Ray has tried for a second; it does not know yet whether the node is dead

    def _is_to_blame(self, task: _Running, error: RayError) -> bool:
        """Return True when a task, and not its node, may have lost its result. A dead actor is replaced.

        The result of a task that had just ended can be lost with its actor, too.
        """
        news = task.actor is task.place.actor and task.place in self._places
        died = isinstance(error, _DEATHS)
        if news:
            self._bury(task.place, error) if died else self._call(task.place)
        return (died or isinstance(error, ObjectLostError)) and task.node in live_nodes()

    def _bury(self, place: _Place, error: RayError) -> None:
        """Replace a dead actor.

        Raises UserError on too many deaths. A place with too many deaths is given up if there are others.
        """
        if place.node and place.node not in live_nodes():
            self._tell(f"node {place.node[:12]} died: its work is repeated elsewhere")
        else:
            place.deaths += 1
            self._deaths += 1
            self._tell(f"an actor died ({cause_of(error)}): its work is repeated")
        in_a_row = place.deaths > MOST_DEATHS_IN_A_ROW
        if (in_a_row and len(self._places) == 1) or self._deaths > MOST_DEATHS * self._count:
            raise UserError(
                f"Actors died {self._deaths} times ({cause_of(error)}); if memory is short, lower the batch "
                "size or the number of actors."
            )
        if in_a_row:
            self._places.remove(place)
            return
        place.actor, place.node = self._start(), ""
        self._call(place)

    def _tell(self, text: str) -> None:
        """Show a message once."""
        if text not in self._told:
            self._told.add(text)
            say(text)


def _check_task(deaths: int, error: RayError) -> None:
    """Raise UserError when too many actors have died of the same task."""
    if deaths > MOST_DEATHS_IN_A_ROW:
        raise UserError(
            f"{deaths} actors died while they worked on the same images ({cause_of(error)}); if memory is "
            "short, lower the batch size or the number of actors."
        )
