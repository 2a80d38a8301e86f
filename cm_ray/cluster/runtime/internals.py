"""Private parts of Ray, and of its link to Optuna, that this package leans on; no other file touches them.

Those of Optuna are in sweeps/internals.py. tests/cluster/test_internals.py is the contract: it fails when a
new version of Ray or Optuna changes them.
"""

from __future__ import annotations

from typing import Any

import optuna
import ray

NO_ROOM = ("WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError")
"""Names of Ray Train's errors for resources that were free when the plan was made, and are not any more."""


def draining_nodes() -> set[str]:
    """Return the ids of the nodes that live and will be taken away; Ray starts nothing on them any more."""
    return set(ray._private.state.state.get_draining_nodes())


def set_study(search: Any, study: optuna.Study) -> None:
    """Let Ray Tune's OptunaSearch use a study that exists already."""
    search._ot_study = study


def trials_of(search: Any) -> dict[str, optuna.trial.Trial]:
    """Return Optuna's trials of an OptunaSearch by Ray Tune's ids."""
    found: dict[str, optuna.trial.Trial] = search._ot_trials
    return found


def told_trials(search: Any) -> set[str]:
    """Return the ids of the trials whose ends an OptunaSearch has told."""
    told: set[str] = search._completed_trials
    return told


def params_of(search: Any, trial: optuna.trial.Trial) -> dict[str, Any]:
    """Return the parameters of a trial, asked for by the function that an OptunaSearch was made with."""
    params: dict[str, Any] = search._space(trial)
    return params


def bracket_of(scheduler: Any) -> Any:
    """Return the only bracket of an ASHAScheduler.

    Its method `on_result(trial, step, value)` records a value, and returns STOP for trials that are behind;
    of a trial it reads `trial_id` alone.
    """
    (bracket,) = scheduler._brackets
    return bracket
