"""The records of a run that other commands read: results, lineage, log. Each has a shape that is checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm_ray.metrics.score import ROW
from cm_ray.storage.files import read_json, read_json_lines
from cm_ray.storage.shapes import ANYTHING

RESULT: Mapping[str, Any] = {
    "name": str,
    "steps": int,
    "model_step": int,
    "average": {"kind": str, "ema_length": float, "initial_share": float},
    "scores": [ROW],
    "class_shares": ({str: float}, None),
    "clipped_noise": (float, None),
    "timings": {"training_s": (float, None), "images_per_s": (float, None), "sampling_and_scoring_s": float},
    "paths": {"model": str, "samples": [str]},
}
"""result.json of a training run; paths are relative to the run directory."""
LINEAGE: Mapping[Any, Any] = {"data.fingerprint": str, str: str}
"""lineage.json."""
_LOGGED: Mapping[Any, Any] = {"step": int, str: ANYTHING}
"""A row of metrics.jsonl."""


def read_result(file: Path) -> dict[str, Any]:
    """Return the results of a finished training. Raises UserError when the file holds anything else."""
    found: dict[str, Any] = read_json(file, RESULT)
    return found


def read_lineage(file: Path) -> dict[str, str]:
    """Return the lineage of a run. Raises UserError when the file holds anything else."""
    found: dict[str, str] = read_json(file, LINEAGE)
    return found


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a log; a row that an interruption cut short is skipped.

    Raises UserError on rows that are no rows of a log.
    """
    return read_json_lines(file, _LOGGED)
