"""Some tests need what not every machine has: they are skipped there, but never by the CI."""

import importlib
import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"
"""Data, weights and tables beside the checkout."""


def skip(reason, *, module=False):
    """Skip a test, or a `module` of tests; where the environment variable CI is true, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI is true: there nothing may be absent", pytrace=False)
    pytest.skip(reason, allow_module_level=module)


def shared(*names, reason):
    """Return a file or folder beside the checkout, ../shared/NAMES; skip when there is none."""
    path = SHARED.joinpath(*names)
    if not path.exists():
        skip(reason)
    return path


def installed(name, *, reason):
    """Return an optional package, for the head of a module of tests; skip the module without it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return skip(reason, module=True)
