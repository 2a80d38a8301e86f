"""Removal of what ended trials no longer need: a sweep of a thousand trials would fill any disk."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import TrialState

from cm_ray.cluster.sweeps.sweep_trial import Trials
from cm_ray.storage.files import remove
from cm_ray.sweeps.study import OVER, trials_in


class Tidier:
    """Removes the checkpoints of trials that have ended; the best trials keep theirs, and running ones.

    The best are those whose objectives, which are minimized, no other trial undercuts. They are kept in
    mind, so that the work for a trial does not grow with the number of trials.
    """

    def __init__(self, study: optuna.Study, trials: Trials) -> None:
        self.study, self.trials = study, trials
        self._best: dict[int, tuple[float, ...]] = {}
        self._begun = False

    def tidy(self, number: int, values: Sequence[float] | None) -> None:
        """Remove the checkpoints of an ended trial, or of those that it is better than.

        values: its objectives; None if it is not complete. The first call tidies all ended trials.
        """
        if not self._begun:
            for trial in trials_in(self.study, *OVER):
                self._add(trial.number, trial.values if trial.state == TrialState.COMPLETE else None)
            self._begun = True
        elif number not in self._best:
            self._add(number, values)

    def _add(self, number: int, values: Sequence[float] | None) -> None:
        if values is None or any(_better(best, values) for best in self._best.values()):
            self._remove(number)
            return
        for worse in [other for other, best in self._best.items() if _better(values, best)]:
            del self._best[worse]
            self._remove(worse)
        self._best[number] = tuple(values)

    def _remove(self, number: int) -> None:
        for seed in range(self.trials.seeds):
            remove(self.trials.run(number, seed).checkpoints)


def _better(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return True if no objective of `one` is higher, and some are lower."""
    return tuple(one) != tuple(other) and all(a <= b for a, b in zip(one, other, strict=True))
