"""Description of the machine that runs a benchmark, and the file of the results."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from cm_ray.version import __version__

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Name the processor, the cores, the GPU if any, the load, and the versions that decide speed."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "load_1min": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write_row(name: str, row: dict[str, Any]) -> Path:
    """Append a row, with the machine, the time and the version, to results/NAME.jsonl."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with path.open("a") as file:
        file.write(json.dumps({**row, "machine": machine(), "time": stamp, "cm_ray": __version__}) + "\n")
    return path
