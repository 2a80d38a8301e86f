"""Progress of a training as metrics of Ray, which its nodes offer to Prometheus."""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Gauge

GAUGES = {
    "cm_ray_training_step": "Finished training steps",
    "cm_ray_training_loss": "Mean loss since the last row of the log",
    "cm_ray_training_images_per_second": "Speed of the training",
    "cm_ray_training_seconds_left": "Estimated time to the last step, without scores and samples",
}
"""Descriptions of the metrics by their names. Ray writes ``ray_`` before the names."""


class TrainingGauges:
    """Sets the metrics of a run, tagged with its name, to each row of its log."""

    def __init__(self, run: str, steps: int) -> None:
        self.steps = steps
        self._gauges = {name: Gauge(name, text, tag_keys=("run",)) for name, text in GAUGES.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags({"run": run})

    def show(self, row: dict[str, Any]) -> None:
        """Set the metrics to a row of metrics.jsonl; a row of scores changes nothing."""
        if "loss" not in row:
            return
        left = row["seconds"] / row["step"] * (self.steps - row["step"])
        values = (row["step"], row["loss"], row["images_per_s"], left)
        for gauge, value in zip(self._gauges.values(), values, strict=True):
            gauge.set(float(value))
