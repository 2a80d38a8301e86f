"""Use of the machine that a command runs on, by the names under which MLflow shows system metrics."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from cm_ray.tracking.sent_state import MetricValue

EVERY_S = 10.0
"""Seconds between two samples, as in MLflow."""


class MachineUse:
    """Samples the use of CPU, memory and GPUs by MLflow's own monitors, at most every EVERY_S seconds.

    It has no thread: what is used is asked when the log of a run has new rows.
    """

    def __init__(self) -> None:
        self._monitors: list[Any] | None = None
        self._next_at = 0.0

    def values(self, started_ms: int) -> list[MetricValue]:
        """Return a sample; nothing while the last one is young, and from the first call, which begins.

        started_ms: time of the start of the MLflow run; a sample's step is its seconds since then.
        """
        if (now := time.monotonic()) < self._next_at:
            return []
        self._next_at = now + EVERY_S
        time_ms = int(1000 * time.time())
        step = max(0, (time_ms - started_ms) // 1000)
        return [MetricValue(step, f"system/{name}", value, time_ms) for name, value in self._sample()]

    def _sample(self) -> list[tuple[str, float]]:
        began = self._monitors is not None
        if self._monitors is None:
            self._monitors = _monitors()
        found: list[tuple[str, float]] = []
        for monitor in self._monitors:
            monitor.collect_metrics()  # the use of the CPUs is that since the last call
            found += [(name, float(value)) for name, value in monitor.aggregate_metrics().items()]
            monitor.clear_metrics()
        return found if began else []


def _monitors() -> list[Any]:
    """Return MLflow's monitors: of CPU and memory, and of GPUs where NVIDIA's library finds some."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    found: list[Any] = [CPUMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # without the library, or without a GPU
        found.append(GPUMonitor())
    return found
