"""Ray Tune's search algorithm on an Optuna study: the next trial, and the states of ended ones.

Tune's own OptunaSearch tells Optuna that stopped and failed trials are complete, and loses the running
trials of a process that died. Here the study is the only record: interrupted trials continue under their
numbers, stopped ones become PRUNED with their learning curves, failed ones FAIL with a sentence.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search.optuna import OptunaSearch

from cm_ray.cluster.runtime.internals import params_of, set_study, told_trials, trials_of
from cm_ray.sweeps.internals import id_in_storage, storage_of
from cm_ray.sweeps.space import NUMBER
from cm_ray.sweeps.study import COST, FAILED, SCORE, SCORES, STOPPED

STEP, FINAL = "step", "final"
"""Keys of results beside the objectives: the step, and a flag of the last result."""


Told = Callable[[int, Sequence[float] | None], None]
"""A function of an ended trial's number, and of its objectives if it is complete."""


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """Search algorithm that suggests the trials of an existing study, interrupted ones first."""

    def __init__(
        self,
        study: optuna.Study,
        suggest: Callable[[Trial], dict[str, Any]],
        objectives: Sequence[str],
        *,
        interrupted: Sequence[int] = (),
        outcome: Callable[[int], dict[str, Any]] = lambda number: {},
        told: Told = lambda number, values: None,
    ) -> None:
        """Use a study, and a function that asks one of its trials for parameters.

        interrupted: ids in the storage of trials to continue.  outcome: returns the attributes that an ended
        trial has left, by its number; FAILED has a sentence.  told: is called when a trial's end is stored.
        """
        several = len(objectives) > 1
        super().__init__(
            suggest,
            metric=list(objectives) if several else objectives[0],
            mode=["min"] * len(objectives) if several else "min",
            sampler=study.sampler,
            study_name=study.study_name,
            storage=storage_of(study),
        )
        set_study(self, study)
        self._study, self._trials = study, trials_of(self)
        self._outcome, self._objectives, self._told = outcome, list(objectives), told
        self._waiting = list(interrupted)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return a trial's parameters and its number."""
        if trial_id not in self._trials:
            self._trials[trial_id] = self._next()
        trial = self._trials[trial_id]
        return {NUMBER: trial.number, **params_of(self, trial)}

    def _next(self) -> Trial:
        if self._waiting:  # Optuna returns the values that the trial has already
            return Trial(self._study, self._waiting.pop(0))
        return self._study.ask()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Store a point of the learning curve, which is that of the first seed."""
        trial = self._trials[trial_id]
        if len(self._objectives) > 1 or result.get("seed", 0) > 0 or result.get(FINAL):
            return
        step, value = int(result[STEP]), result[self._objectives[0]]
        known = storage_of(self._study).get_trial(id_in_storage(trial)).intermediate_values
        if step not in known and math.isfinite(value):
            trial.report(value, step)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended: complete, stopped early or failed."""
        trial, last = self._trials[trial_id], bool((result or {}).get(FINAL))
        if trial_id in told_trials(self) or not (error or last):
            return  # told before; or interrupted: it stays RUNNING, and the next call continues it
        outcome = self._outcome(trial.number)
        if result and FAILED in result:  # on a node that does not see the trial's folder
            outcome = {FAILED: result[FAILED]}
        values, stopped = self._values(outcome), STOPPED in outcome
        if not stopped and not all(map(math.isfinite, values)):
            outcome.setdefault(FAILED, "its process died" if error else "its score is not finite")
        for name, value in outcome.items():
            trial.set_user_attr(name, value)
        complete = FAILED not in outcome and not stopped
        if complete:
            self._study.tell(trial, values)
        else:
            self._study.tell(trial, state=TrialState.FAIL if FAILED in outcome else TrialState.PRUNED)
        told_trials(self).add(trial_id)  # only now: when the storage is out of reach, Tune calls again
        self._told(trial.number, values if complete else None)

    def _values(self, outcome: dict[str, Any]) -> list[float]:
        """Return the objectives of an ended trial; NaN where it has none."""
        scores = outcome.get(SCORES)
        known = {SCORE: statistics.fmean(scores) if scores else math.nan, COST: outcome.get(COST, math.nan)}
        return [float(known[name]) for name in self._objectives]

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study holds the whole state of the search."""
