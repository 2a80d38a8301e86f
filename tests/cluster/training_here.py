"""Trainings on Ray whose worker is this process: all is real but Ray Train's processes.

A training on Ray Train starts six processes that import Ray and PyTorch, 25 s of a core. Tests of what is
done before and after, with runs that are trained, use this; tests of the training itself do not.
"""

from typing import Any

from ray.train import ScalingConfig


def scaling_here(*, num_workers: int, use_gpu: bool, **_: Any) -> ScalingConfig:
    """Return the setting by which Ray Train calls the worker's function in the process of the caller."""
    assert (num_workers, use_gpu) == (1, False), "only one worker can be this process"
    return ScalingConfig(num_workers=0)
