"""Notices of nodes that leave and of room for more workers: all workers ask for them now and then."""

from __future__ import annotations

import time

from cm_ray.training.communication import Communication

EVERY_S = 2.0
"""Seconds between two questions. Clouds give notices of 20 to 120 seconds."""


class Notices:
    """Tells all workers at the same step of nodes that will be taken away, and of room for more workers.

    A question is a message to all workers, which costs as much as some short steps. Rank 0 says by its clock
    after how many steps the next one follows, at most twice as many as before.
    """

    def __init__(self, communication: Communication, step: int) -> None:
        """Ask for the first time after the step that follows `step`."""
        self.communication = communication
        self._asked = step
        self._next = step + 1
        self._since = time.monotonic()
        self._known: frozenset[str] = frozenset()
        self.room = False
        """True, on all workers, once the training is to go on with more of them."""

    def new(self, step: int) -> bool:
        """Return True, on all workers, if there is a notice about a node that there was none about before."""
        if step < self._next:
            return False
        nodes = self.communication.leaving_nodes()
        self.room = self.communication.has_room()
        self._plan_next(step)
        new = bool(nodes - self._known)
        self._known |= nodes
        return new

    def _plan_next(self, step: int) -> None:
        now, done = time.monotonic(), step - self._asked
        steps = int(EVERY_S * done / max(now - self._since, 1e-6))
        steps = min(max(steps, 1), 2 * done)
        self._asked, self._since = step, now
        self._next = step + self.communication.broadcast(steps)
