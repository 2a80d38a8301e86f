"""Waiting for nodes that a cluster does not have yet, and for resources that other jobs use.

Whatever is waited for is requested as a placement group, because clusters that start nodes on demand start
them for such requests. It is said at once and every minute, and a limit ends the wait with a sentence.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import ray

from cm_ray.cluster.runtime.plan import Bundle, Shortage
from cm_ray.errors import UserError
from cm_ray.runs.console import say

P = TypeVar("P")

EVERY_S = 60.0
"""Seconds between two messages."""
SOON_S = 5.0
"""Seconds in which resources become free that a part of the same job has just used."""
LOST_NODES_S = 600.0
"""Seconds that nodes lost in the middle of the work are waited for, unless the settings say longer."""
_POLL_S = 0.5


def planned_when_nodes_suffice(plan: Callable[[], P], limit_s: float) -> P:
    """Return the result of `plan`; while it raises Shortage, wait for nodes.

    limit_s: seconds to wait at most. Raises Shortage at once when that is 0, and UserError after it.
    """
    try:
        return plan()
    except Shortage as shortage:
        if limit_s <= 0:
            raise
        lack, bundles = shortage.lack, shortage.bundles
    with _requested(bundles):
        for waited in _moments(limit_s):
            if waited.is_due:
                say(f"waiting for nodes, up to {span(limit_s - waited.seconds)} more: {lack}")
            time.sleep(_POLL_S)
            try:
                return plan()
            except Shortage as shortage:
                lack = shortage.lack
    raise UserError(f"{lack}, {span(limit_s)} later, too; add nodes and run the same command again.")


@contextlib.contextmanager
def reserved(bundles: Sequence[Bundle], strategy: str, limit_s: float = math.inf) -> Iterator[Any]:
    """Yield a placement group as soon as its resources are free; it is removed after the block.

    limit_s: seconds to wait at most, when other jobs use them. Raises UserError after it.
    """
    with _requested(bundles, strategy) as group:
        if not group.wait(SOON_S):
            for waited in _moments(limit_s):
                if waited.is_due:
                    say(f"waiting for {_described(bundles)}, which other jobs of the cluster use")
                if group.wait(min(1.0, EVERY_S)):
                    break
            else:
                raise UserError(
                    f"Other jobs of the cluster have used {_described(bundles)} for {span(limit_s)}; run the "
                    "same command again when they have ended."
                )
        yield group


def are_free(bundles: Sequence[Bundle], strategy: str, within_s: float = SOON_S) -> bool:
    """Return True if resources are free, or become so within seconds."""
    with _requested(bundles, strategy) as group:
        return bool(group.wait(within_s))


@contextlib.contextmanager
def _requested(bundles: Sequence[Bundle], strategy: str = "PACK") -> Iterator[Any]:
    """Yield a placement group that is requested, and removed after the block."""
    group = ray.util.placement_group(list(bundles), strategy=strategy)
    try:
        yield group
    finally:
        ray.util.remove_placement_group(group)


class _Moment(NamedTuple):
    """A moment of a wait, so many seconds after its beginning."""

    seconds: float
    is_due: bool
    """True when a message is due."""


def _moments(limit_s: float) -> Iterator[_Moment]:
    """Yield moments until the limit; a message is due at the first of them and every minute."""
    started, told = time.monotonic(), -math.inf
    while (seconds := time.monotonic() - started) < limit_s:
        is_due = seconds - told >= EVERY_S
        told = seconds if is_due else told
        yield _Moment(seconds, is_due)


def span(seconds: float) -> str:
    """Return a time in a sentence, such as 30 min or 45 s."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _described(bundles: Sequence[Bundle]) -> str:
    """Return bundles in a sentence, such as "2 x 1 CPU and 1 GPU"."""
    texts = Counter(
        " and ".join(f"{amount:g} {kind}" for kind, amount in bundle.items()) for bundle in bundles
    )
    return ", ".join(f"{count} x {text}" for text, count in texts.items())
