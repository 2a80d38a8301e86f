"""Runs of a fuzzer: a few fixed examples in the test suite, or as many as fit into a time."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from cm_ray.errors import UserError

SECONDS = float(os.environ.get("CM_RAY_FUZZ_SECONDS", "0"))
"""Seconds of the long form, over all targets; 0 for the short form."""
TARGETS = 14
"""The number of targets that share the time."""
ROOM = 1 << 30
"""Bytes of address space that a reader may take beyond what the process has."""
_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def fuzz(examples, check, few):
    """Call `check` with examples of a strategy: `few` of them, or as many as fit into a share of SECONDS.

    Everything but a return and a UserError fails, and so does an allocation of more than there is room for.
    """

    def one(example):
        with contextlib.suppress(UserError):
            check(example)

    with limited_memory():
        if not SECONDS:
            _run(one, examples, few, derandomize=True)
            return
        end, number = time.monotonic() + SECONDS / TARGETS, time.time_ns()
        while time.monotonic() < end:
            number += 1
            _run(one, examples, 200, number=number)


def _run(one, examples, count, *, number=0, derandomize=False):
    chosen = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=_CHECKS,
        phases=[Phase.generate, Phase.shrink],
    )
    test = chosen(given(examples)(one))
    (test if derandomize else seed(number)(test))()


@contextlib.contextmanager
def limited_memory():
    """Give the process no more than ROOM bytes of address space beyond what it has, where Linux tells it."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        yield
        return
    pages = int(statistics.read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def assert_one_line(error):
    """Fail, with an error that `fuzz` does not pass over, if a refusal has more than one line."""
    if "\n" in str(error):
        raise AssertionError(f"more than a line: {error}")
