"""A trial of a sweep: one setting, trained once for each seed, in a process of Ray Tune."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from cm_ray.budget.cost import training_flops
from cm_ray.cluster.runtime.connect import ENVIRONMENT
from cm_ray.cluster.sweeps.searcher import FINAL, STEP
from cm_ray.cluster.training.prepare import PreparedData
from cm_ray.cluster.training.run import Stopped, train
from cm_ray.core.out_of_memory import is_out_of_memory
from cm_ray.errors import UserError, setting, spoken
from cm_ray.metrics.score import ROW
from cm_ray.networks.formats.reading import read_model
from cm_ray.own_code import carried, take
from cm_ray.recipes.recipe import Recipe
from cm_ray.remote.witness import Witness
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import override
from cm_ray.storage.files import read_json, remove, write_json
from cm_ray.sweeps.space import NUMBER, Space
from cm_ray.sweeps.study import COST, FAILED, SCORE, SCORES, STOPPED
from cm_ray.training.starting_models import read_teacher

_STOP, _OUTCOME = "stop", "outcome.json"
"""Files in a trial's folder: a request to stop; the attributes of the ended trial."""
_OUTCOMES = {
    f"{SCORES}?": [float],
    f"{SCORE}?": ROW,
    f"{COST}?": float,
    f"{FAILED}?": str,
    f"{STOPPED}?": int,
}
_PATIENCE_S = 60
_TOO_LITTLE_MEMORY = (
    "The trial needs more memory than there is; lower batch_size or network.channels in the space, or run "
    f"fewer trials at once by {setting('concurrent')}."
)
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The common properties of all trials of a sweep, which are sent to the processes of Ray Tune."""

    space: Space
    folder: Path
    """The sweep's folder."""
    seeds: int
    """Trainings of each setting."""
    changes: Mapping[str, Any]
    """Operational settings of all trainings by dotted path: resources and tracking."""
    cwd: Path
    """Working directory of the command, to which paths in the settings are relative."""
    prepared: PreparedData | None = None
    """Shards of the space's base, so that not every trial looks at the files of the data."""
    seen: Witness | None = None
    """A file of the sweep's folder, which all nodes share."""
    own_code: dict[str, Any] = field(default_factory=carried)
    """The code of one's own that the driver has named."""

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
        """Return the attributes that an ended trial has left for the study; empty before its end."""
        file = self.place(number) / _OUTCOME
        return dict(read_json(file, _OUTCOMES)) if file.is_file() else {}

    def config(self, number: int, seed: int, params: Mapping[str, Any]) -> Recipe:
        """Return the settings of a trial's training. Raises UserError when they are invalid."""
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
    """Train a setting from its last checkpoint, if any, and report its scores to Ray Tune.

    Its output goes to log.txt in the trial's folder. A UserError, such as of a loss that is not finite, ends
    the trial as failed, and so does too little memory; after any other exception Ray Tune repeats it.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    take(trials.own_code)
    params = {name: value for name, value in config.items() if name != NUMBER}
    trial = _Trial(trials, config[NUMBER], params, tune.report)
    try:
        if trials.seen is not None:
            trials.seen.check()
    except UserError as error:  # what is written here does not reach the driver
        trial.refuse(str(error))
        return
    with _said_in(trials.place(trial.number) / "log.txt"), _working_in(trials.cwd):
        trial.forget_failure()
        try:
            trial.train()
        except Stopped:
            trial.stopped()
        except UserError as error:
            trial.fail(str(error))
        except Exception as error:
            told = is_out_of_memory(error)
            trial.fail(spoken(_TOO_LITTLE_MEMORY) if told else f"{type(error).__name__}: {error}", told=told)
            if not told:
                raise


class _Trial:
    """A running trial."""

    def __init__(self, trials: Trials, number: int, params: Mapping[str, Any], report: Report) -> None:
        self.trials, self.number, self.params, self._report = trials, number, params, report
        self.scores: list[float] = []
        self.cost = float("nan")
        self.last_step, self.last_score = 0, float("nan")
        self.asked = trials.place(number) / _STOP

    def train(self) -> None:
        """Train all seeds and report the mean of their scores. Raises Stopped on a request to stop."""
        if STOPPED in self.trials.outcome(self.number):  # the call was killed before the study was told
            raise Stopped
        for seed in range(self.trials.seeds):
            if seed > 0 and self.asked.exists():
                raise Stopped
            config = self.trials.config(self.number, seed, self.params)
            run, watch = self.trials.run(self.number, seed), partial(self._watch, config, seed)
            _wait_until_free(run)
            for row in run.read_metrics():
                watch(row)  # the study may lack scores of an earlier call's training
            train(config, watch, self.trials.prepared)
            self.scores.append(float(_first_score(run)["value"]))
            if seed == 0 and "cost" in self.trials.space.minimize:
                self.cost = _cost(config, run)
        outcome = {SCORES: self.scores, SCORE: _first_score(run)}
        self._leave(outcome | ({COST: self.cost} if self.cost == self.cost else {}))
        self._tell(self.trials.seeds * config.steps, statistics.fmean(self.scores), final=True)

    def forget_failure(self) -> None:
        """Remove the record of an earlier attempt's failure."""
        if FAILED in self.trials.outcome(self.number):
            remove(self.trials.place(self.number) / _OUTCOME)

    def stopped(self) -> None:
        """Record the step at which the trial was stopped, and report its end to Ray Tune."""
        before = self.trials.outcome(self.number)
        self._leave(before or {STOPPED: self.last_step})
        self._tell(before.get(STOPPED, self.last_step), self.last_score, final=True)

    def fail(self, sentence: str, *, told: bool = True) -> None:
        """Record the reason of a failure, and report the end to Ray Tune unless it repeats the trial."""
        self._leave({FAILED: sentence.partition("\n")[0]})
        if told:
            self._tell(self.last_step, float("nan"), final=True)

    def refuse(self, sentence: str) -> None:
        """Report a failure to Ray Tune alone."""
        self._report({STEP: 0, SCORE: math.nan, COST: math.nan, FINAL: True, "seed": 0, FAILED: sentence})

    def _watch(self, config: Recipe, seed: int, row: dict[str, Any]) -> bool:
        """Report a row of the run's log that has scores, and return whether the trial is to stop.

        Ray Tune calls the scheduler, which judges the first seed, before a report returns.
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


def _first_score(run: RunDirectory) -> dict[str, Any]:
    """Return the row of the score that decides. Raises UserError when the results have none."""
    rows = run.result()["scores"]
    if not rows:
        raise UserError(f"{run.result_file} has no scores; remove the trial to train it again.")
    return dict(rows[0])


def _cost(config: Recipe, run: RunDirectory) -> float:
    spec, _ = read_model(run.model)
    return training_flops(config, spec, read_teacher(config, run))


def _wait_until_free(run: RunDirectory) -> None:
    """Wait until the process of a killed call has released the lock of its run.

    Raises TimeoutError, which makes Ray Tune repeat the trial, when it has not done so in 60 s.
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
    """Work in the folder of the command, where this node has it: Ray Tune changes to another one."""
    with contextlib.chdir(folder) if folder.is_dir() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _said_in(file: Path) -> Iterator[None]:
    """Append standard output and standard error to a file, line by line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        file.open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield
