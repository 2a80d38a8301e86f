"""Asynchronous successive halving (Li et al. 2018) that remembers the trials of earlier calls."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler

from cm_ray.cluster.sweep.searcher import FINAL, STEP
from cm_ray.sweeps.space import NUMBER
from cm_ray.sweeps.study import SCORE


class RememberingASHA(ASHAScheduler):  # type: ignore[misc]
    """Tune's ASHA on the score by steps: of each rung's trials, those of the worst scores are asked to stop.

    Tune would kill them: if the Train controller in a trial dies while it ends, its workers' resources are
    lost to the cluster, and the next trial waits for ever.
    """

    def __init__(
        self, study: optuna.Study, stop: Callable[[int], None], *, first: int, last: int, reduction: int
    ) -> None:
        """Take what the study's trials have scored at the rungs first, first · reduction, … last.

        stop: asks a trial to stop, by its number.
        """
        super().__init__(
            time_attr=STEP,
            metric=SCORE,
            mode="min",
            grace_period=first,
            max_t=max(first, last),
            reduction_factor=reduction,
            stop_last_trials=False,  # the last rung is the first seed's end: other seeds may follow
        )
        self._stop = stop
        (self.bracket,) = self._brackets
        for trial in study.get_trials(deepcopy=False):
            for step, score in sorted(trial.intermediate_values.items()):
                self._is_behind(trial.number, step, score)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ask a trial that is behind to stop; to Tune it goes on. Only the first seed is judged."""
        judged = SCORE in result and not result.get(FINAL) and result.get("seed", 0) == 0
        if judged and self._is_behind(trial.config[NUMBER], result[STEP], result[SCORE]):
            self._stop(trial.config[NUMBER])
        return str(self.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Do nothing: what comes last is a mean over seeds, or known."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Do nothing."""

    def _is_behind(self, number: int, step: int, score: float) -> bool:
        """Record a score at its rung, once for each trial, whichever call it ran in; tell if it is behind."""
        who = SimpleNamespace(trial_id=number)  # all that the bracket asks for
        return bool(self.bracket.on_result(who, step, -score) == self.STOP)
