"""Asynchronous successive halving (Li et al. 2018) that includes the trials of earlier calls."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler

from cm_ray.cluster.runtime.internals import bracket_of
from cm_ray.cluster.sweeps.searcher import FINAL, STEP
from cm_ray.sweeps.space import NUMBER
from cm_ray.sweeps.study import SCORE


class RememberingASHA(ASHAScheduler):  # type: ignore[misc]
    """Tune's ASHA scheduler, which asks the trials with the worst scores of each rung to stop.

    Tune itself would kill them. When the Train controller in a trial is killed while it shuts down, the
    cluster never gets its workers' resources back, and the next trial waits forever.
    """

    def __init__(
        self, study: optuna.Study, stop: Callable[[int], None], *, first: int, last: int, reduction: int
    ) -> None:
        """Fill the rungs at steps first, first · reduction, …, last with the scores in the study.

        stop: asks the trial of a number to stop.
        """
        super().__init__(
            time_attr=STEP,
            metric=SCORE,
            mode="min",
            grace_period=first,
            max_t=max(first, last),
            reduction_factor=reduction,
            stop_last_trials=False,  # the last rung is the end of the first seed: other seeds may follow
        )
        self._stop = stop
        self.bracket = bracket_of(self)
        for trial in study.get_trials(deepcopy=False):
            for step, score in sorted(trial.intermediate_values.items()):
                self._is_behind(trial.number, step, score)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask a trial that is behind to stop, and tell Tune to continue it. Only the first seed counts."""
        judged = SCORE in result and not result.get(FINAL) and result.get("seed", 0) == 0
        if judged and self._is_behind(trial.config[NUMBER], result[STEP], result[SCORE]):
            self._stop(trial.config[NUMBER])
        return str(self.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Do nothing: the last result is a mean over seeds, or was reported before."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Do nothing."""

    def _is_behind(self, number: int, step: int, score: float) -> bool:
        """Record a score at its rung, once for each trial, and return whether the trial is behind."""
        who = SimpleNamespace(trial_id=number)  # the only attribute that the bracket reads
        return bool(self.bracket.on_result(who, step, -score) == self.STOP)
