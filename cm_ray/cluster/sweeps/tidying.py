"""Removal of what ended trials no longer need: a sweep of a thousand trials would fill any disk."""

from __future__ import annotations

import optuna

from cm_ray.cluster.sweeps.sweep_trial import Trials
from cm_ray.storage.files import remove
from cm_ray.sweeps.study import OVER, trials_in


class Tidier:
    """Removes the checkpoints of trials that have ended; the best trials keep theirs, and running ones."""

    def __init__(self, study: optuna.Study, trials: Trials) -> None:
        self.study, self.trials = study, trials
        self._tidied: set[int] = set()

    def tidy(self) -> None:
        """Remove the checkpoints of all trials that have ended and are not the best so far."""
        best = {trial.number for trial in self.study.best_trials}
        for trial in trials_in(self.study, *OVER):
            if trial.number not in best | self._tidied:
                for seed in range(self.trials.seeds):
                    remove(self.trials.run(trial.number, seed).checkpoints)
                self._tidied.add(trial.number)
