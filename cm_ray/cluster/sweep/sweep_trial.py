"""One trial of a sweep: a setting, trained once for each seed, in a process of Tune's."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from cm_ray.budget.cost import training_flops
from cm_ray.cluster.runtime.connect import ENVIRONMENT
from cm_ray.cluster.sweep.searcher import FINAL, STEP
from cm_ray.cluster.train.run import Stopped, train
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import read_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.storage.files import read_json, remove, write_json
from cm_ray.sweeps.space import NUMBER, Space
from cm_ray.sweeps.study import COST, FAILED, SCORE, SCORES, STOPPED
from cm_ray.training.starting_models import read_teacher

_STOP, _OUTCOME = "stop", "outcome.json"
"""In a trial's folder: the scheduler asks it to stop; what has become of it."""
_PATIENCE_S = 60
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What all trials of a sweep have in common; Tune's processes get it."""

    space: Space
    folder: Path
    """Of the sweep."""
    seeds: int
    changes: Mapping[str, Any]
    """Operational settings of all trainings by dotted path: their share of the cluster, where to track."""

    cwd: Path
    """Of the command: its settings may have paths from there."""

    def place(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def run(self, number: int, seed: int) -> RunDirectory:
        """Return the run directory of a trial's training."""
        return RunDirectory(self.place(number) / f"seed-{seed}")

    def stop(self, number: int) -> None:
        """Ask a trial to stop."""
        (self.place(number) / _STOP).touch()

    def outcome(self, number: int) -> dict[str, Any]:
        """Return what a trial has left to be known of it: attributes of the study's trial."""
        file = self.place(number) / _OUTCOME
        return dict(read_json(file)) if file.is_file() else {}

    def config(self, number: int, seed: int, params: Mapping[str, Any]) -> Recipe:
        """Return the settings of a trial's training. Raises UserError when they cannot be trained."""
        config = self.space.config(params)
        return override(
            config,
            {
                **self.changes,
                "name": f"trial-{number}-seed-{seed}",
                "run_dir": str(self.run(number, seed).root),
                "seed": config.seed + seed,
            },
        )


def run_trial(config: dict[str, Any], *, trials: Trials) -> None:
    """Train a setting and report its scores to Tune; goes on from the checkpoints that are there.

    What it says goes to log.txt in the trial's folder. Bad settings, and trainings that cannot go on, end the
    trial as failed; what else is raised is tried again by Tune.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    params = {name: value for name, value in config.items() if name != NUMBER}
    trial = _Trial(trials, config[NUMBER], params, tune.report)
    with _said_in(trials.place(trial.number) / "log.txt"), _working_in(trials.cwd):
        trial.forget_failure()
        try:
            trial.train()
        except Stopped:
            trial.stopped()
        except UserError as error:
            trial.fail(str(error))
        except Exception as error:
            trial.fail(f"{type(error).__name__}: {error}", told=False)
            raise


class _Trial:
    """A trial at work."""

    def __init__(self, trials: Trials, number: int, params: Mapping[str, Any], report: Report) -> None:
        self.trials, self.number, self.params, self._report = trials, number, params, report
        self.scores: list[float] = []
        self.cost = float("nan")
        self.last_step, self.last_score = 0, float("nan")
        self.asked = trials.place(number) / _STOP

    def train(self) -> None:
        """Train all seeds and report the mean of their scores. Raises Stopped when that is asked for."""
        if STOPPED in self.trials.outcome(self.number):  # a call was killed before the study was told
            raise Stopped
        for seed in range(self.trials.seeds):
            if seed > 0 and self.asked.exists():
                raise Stopped
            config = self.trials.config(self.number, seed, self.params)
            run, watch = self.trials.run(self.number, seed), partial(self._watch, config, seed)
            _wait_until_free(run)
            for row in run.read_metrics():
                watch(row)  # the study may not know what an earlier call's training has scored
            train(config, watch=watch)
            self.scores.append(float(read_json(run.result_file)["scores"][0]["value"]))
            if seed == 0 and "cost" in self.trials.space.minimize:
                self.cost = _cost(config, run)
        outcome = {SCORES: self.scores, SCORE: read_json(run.result_file)["scores"][0]}
        self._leave(outcome | ({COST: self.cost} if self.cost == self.cost else {}))
        self._tell(self.trials.seeds * config.steps, statistics.fmean(self.scores), final=True)

    def forget_failure(self) -> None:
        """Forget why an earlier attempt failed."""
        if FAILED in self.trials.outcome(self.number):
            remove(self.trials.place(self.number) / _OUTCOME)

    def stopped(self) -> None:
        """Leave where the trial was stopped, and tell Tune that it is over."""
        before = self.trials.outcome(self.number)
        self._leave(before or {STOPPED: self.last_step})
        self._tell(before.get(STOPPED, self.last_step), self.last_score, final=True)

    def fail(self, sentence: str, *, told: bool = True) -> None:
        """Leave why the trial failed, and tell Tune that it is over if it is."""
        self._leave({FAILED: sentence.partition("\n")[0]})
        if told:
            self._tell(self.last_step, float("nan"), final=True)

    def _watch(self, config: Recipe, seed: int, row: dict[str, Any]) -> bool:
        """Report a row of the run's log with scores: the first seed's decide whether the trial stops.

        Tune has the scheduler decide before a report returns.
        """
        if row.get("scores"):
            shown = self.scores or [row["scores"][0]["value"]]
            self._tell(seed * config.steps + row["step"], statistics.fmean(shown), seed=seed)
        return self.asked.exists()

    def _tell(self, step: int, score: float, *, final: bool = False, seed: int = 0) -> None:
        self.last_step, self.last_score = step, score
        self._report({STEP: step, SCORE: score, COST: self.cost, FINAL: final, "seed": seed})

    def _leave(self, outcome: Mapping[str, Any]) -> None:
        write_json(self.trials.place(self.number) / _OUTCOME, dict(outcome))


def _cost(config: Recipe, run: RunDirectory) -> float:
    spec, _ = read_model(run.model)
    return training_flops(config, spec, read_teacher(config, run))


def _wait_until_free(run: RunDirectory) -> None:
    """Wait for the process of a killed call to let go of its run.

    Raises TimeoutError when it does not: the trial's settings are not to blame, and it is tried again.
    """
    until = time.monotonic() + _PATIENCE_S
    while run.root.exists():
        with contextlib.suppress(UserError), run.locked():
            return
        if time.monotonic() > until:
            raise TimeoutError(f"another process has been working in {run.root} for {_PATIENCE_S} s")
        time.sleep(1)


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Work in the folder of the command, where this machine has it: Tune goes into one of its own."""
    with contextlib.chdir(folder) if folder.is_dir() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _said_in(file: Path) -> Iterator[None]:
    """Write what is said to a file, line by line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        file.open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield
