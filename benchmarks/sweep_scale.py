"""Benchmark of a sweep's own work: what the command does for each trial, when trials take no time.

    python benchmarks/sweep_scale.py --trials 1000

Trials are asked for, shown, scored, told and tidied as in a sweep, with the study in SQLite, in one process
and one after the other. They train nothing: each leaves a checkpoint and a score. Ray Tune and the processes
of trials are not part of it. The row has the milliseconds per trial among the first and the last tenth, which
are alike if the work does not grow with the number of trials, the growth of memory, and what is left on the
disk.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Literal

import psutil
from machine import write_row

from cm_ray import recipes
from cm_ray.cluster.sweeps.searcher import FINAL, STEP, StudySearch
from cm_ray.cluster.sweeps.sweep_table import SweepTable
from cm_ray.cluster.sweeps.sweep_trial import Trials
from cm_ray.cluster.sweeps.tidying import Tidier
from cm_ray.command_line.options import run_job
from cm_ray.storage.files import write_json
from cm_ray.sweeps.space import Categorical, Float, Space
from cm_ray.sweeps.study import SCORE, SCORES, begin, open_sampler, open_storage, open_study

SPACE = Space(
    question="How much does a trial cost the command?",
    base=recipes.ct_digits(),
    space={
        "optimizer.learning_rate": Float(1e-4, 1e-1, log=True),
        "distance": Categorical(["l2", "l1"]),
        "target.mu0": Float(0.01, 0.99),
    },
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Settings of the benchmark."""

    trials: int = 1000
    """Trials of the sweep."""
    searcher: Literal["random", "tpe"] = "random"
    """Sampler; tpe models all earlier trials anew for each one."""
    checkpoint_kib: int = 64
    """Size of the checkpoint that each trial leaves."""
    write: bool = True
    """Append the row to the results."""


class Sweep:
    """A sweep without Ray Tune: its search, its table and its tidying."""

    def __init__(self, args: Scale, folder: Path) -> None:
        self.draw, self.checkpoint = Random(0), bytes(args.checkpoint_kib << 10)
        self.seconds = {"search": 0.0, "tidy": 0.0, "table": 0.0}
        self.trials = Trials(space=SPACE, folder=folder, seeds=1, changes={}, cwd=folder)
        sampler = open_sampler(args.searcher, seed=0, trials=args.trials, objectives=1)
        study = open_study("scale", open_storage("", folder), sampler, SPACE.minimize, "scale")
        begin(study, SPACE, args.searcher, "scale")
        self.tidier, self.table = Tidier(study, self.trials), SweepTable(args.trials, self.trials)
        self.search = StudySearch(
            study,
            SPACE.suggest,
            SPACE.minimize,
            outcome=self.trials.outcome,
            told=lambda number, values: self._timed("tidy", self.tidier.tidy, number, values),
        )

    def run(self, name: str) -> None:
        """Run a trial from its suggestion to its end."""
        config = self._timed("search", self.search.suggest, name)
        trial, number = SimpleNamespace(config=config), config["trial"]
        self._timed("table", self.table.on_trial_start, 0, [], trial)
        file = self.trials.run(number, 0).checkpoints / "step-00000001" / "state.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(self.checkpoint)
        score = self.draw.random()
        write_json(self.trials.place(number) / "outcome.json", {SCORES: [score]})
        result = {STEP: 1, SCORE: score, "seed": 0}
        self._timed("search", self.search.on_trial_result, name, result)
        self._timed("search", self.search.on_trial_complete, name, result | {FINAL: True})
        self._timed("table", self.table.on_trial_result, 0, [], trial, result | {FINAL: True})

    def _timed(self, part, work, *args):  # type: ignore[no-untyped-def]
        began = time.perf_counter()
        try:
            return work(*args)
        finally:
            self.seconds[part] += time.perf_counter() - began


def measure(args: Scale) -> dict[str, object]:
    """Return the row of the benchmark."""
    process, marks = psutil.Process(), []
    tenth = max(1, args.trials // 10)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sweep = Sweep(args, folder)
        for number in range(args.trials):
            if number in (0, tenth, args.trials - tenth):
                marks.append((dict(sweep.seconds), process.memory_info().rss))
            sweep.run(str(number))
        marks.append((dict(sweep.seconds), process.memory_info().rss))
        left = [file for file in folder.rglob("*") if file.is_file()]
        study = (folder / "study.db").stat().st_size
        checkpoints = sum(file.name == "state.safetensors" for file in left)
    (start, _), (first, before), (late, _), (end, after) = (marks[0], marks[1], marks[-2], marks[-1])

    def milliseconds(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
        return {part: round(1e3 * (b[part] - a[part]) / tenth, 2) for part in a}

    return {
        "trials": args.trials,
        "searcher": args.searcher,
        "first_tenth_ms_per_trial": milliseconds(start, first),
        "last_tenth_ms_per_trial": milliseconds(late, end),
        "memory_growth_kib_per_trial": round((after - before) / 1024 / args.trials, 1),
        "study_kib_per_trial": round(study / 1024 / args.trials, 1),
        "checkpoints_left": checkpoints,
    }


def main(args: Scale) -> None:
    row = measure(args)
    print(json.dumps(row))
    if args.write:
        print(f"row added to {write_row('sweep_scale', row)}")


if __name__ == "__main__":
    run_job(Scale, main)
