"""Signs of life: a line for each phase of a command as it begins, with the seconds since its start."""

from __future__ import annotations

import sys
import time

_began = time.monotonic()


def begin() -> None:
    """Count seconds from now on, as every command does first."""
    global _began
    _began = time.monotonic()


def phase(text: str) -> None:
    """Say on standard error which phase begins, such as "starting Ray on this machine".

    The seconds of a phase are the difference between its line and the next one.
    """
    print(f"{time.monotonic() - _began:5.1f} s  {text}", file=sys.stderr, flush=True)
