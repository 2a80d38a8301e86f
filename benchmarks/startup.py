"""Benchmark of the start: seconds from a command to its first line and to its first training step.

    python benchmarks/startup.py

Beside them, in turn: `import torch` alone, and a bare Ray Train `fit` of an empty loop on a local cluster,
which no training on Ray can be faster than. Medians of the rounds, and ratios to these two.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from machine import write_row

from cm_ray.command_line.options import run_job

ROOT = Path(__file__).parents[1]
BARE_FIT = """
import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

ray.init(include_dashboard=False, log_to_driver=False)
TorchTrainer(lambda config: None, train_loop_config={}, scaling_config=ScalingConfig(num_workers=1)).fit()
"""


@dataclass(frozen=True, kw_only=True)
class Startup:
    """Settings of the benchmark."""

    rounds: int = 3
    """Times that each program is started; the medians count."""
    recipe: str = "ict_digits"
    """Recipe whose training is started."""


def seconds_of(*words: str) -> float:
    """Return the seconds that a Python program takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=True)
    return time.perf_counter() - began


def starts_of(recipe: str) -> tuple[float, float, list[str]]:
    """Return the seconds to the first line and to the first step of a training, and the lines until then."""
    with tempfile.TemporaryDirectory() as folder:
        words = [str(ROOT / "jobs" / f"{recipe}.py"), "--run-dir", f"{folder}/run"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        first, lines = 0.0, []
        for line in process.stderr:
            lines.append(line.rstrip())
            first = first or time.perf_counter() - began
            if line.startswith("step 1/"):
                break
        step = time.perf_counter() - began
        process.send_signal(signal.SIGINT)
        process.stderr.read()  # a full pipe would keep the process from its end
        process.wait()
    if not lines or not lines[-1].startswith("step 1/"):
        raise RuntimeError("\n".join(lines))
    return first, step, lines


def median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2)


def main(args: Startup) -> None:
    torch_s, fit_s, first_s, step_s, lines = [], [], [], [], [""]
    for _ in range(args.rounds):
        torch_s.append(seconds_of("-c", "import torch"))
        fit_s.append(seconds_of("-c", BARE_FIT))
        first, step, lines = starts_of(args.recipe)
        first_s.append(first)
        step_s.append(step)
    row = {
        "recipe": args.recipe,
        "rounds": args.rounds,
        "import_torch_s": median(torch_s),
        "bare_fit_s": median(fit_s),
        "first_line_s": median(first_s),
        "first_step_s": median(step_s),
        "first_step_per_import_torch": round(median(step_s) / median(torch_s), 2),
        "first_step_per_bare_fit": round(median(step_s) / median(fit_s), 2),
    }
    print("\n".join(lines), *(f"{name}: {value}" for name, value in row.items()), sep="\n")
    print(f"row added to {write_row('startup', row)}")


if __name__ == "__main__":
    run_job(Startup, main)
