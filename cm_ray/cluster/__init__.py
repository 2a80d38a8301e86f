"""All code that uses Ray: training, sampling, scoring, searches and sweeps on a cluster.

Each sub-package is named after its job. Code that works without Ray belongs in another package. `train` and
`sweep` are the interface for Python: they connect to the cluster of this process or of RAY_ADDRESS, or start
one on this machine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cm_ray.extras import needs

__all__ = ["sweep", "train"]

needs("ray", "pyarrow", "tqdm", extra="train")


def __getattr__(name: str) -> Any:
    """Import a function of the interface when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'cm_ray.cluster' has no attribute {name!r}")
    return getattr(importlib.import_module("cm_ray.cluster.interface"), name)


if TYPE_CHECKING:
    from cm_ray.cluster.interface import sweep as sweep
    from cm_ray.cluster.interface import train as train
