"""Private parts of Optuna that this package leans on; no other file touches them.

Those of Ray are in cluster/runtime/internals.py. tests/cluster/test_internals.py is the contract of both.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study."""
    return study._storage


def id_in_storage(trial: optuna.trial.Trial | optuna.trial.FrozenTrial) -> int:
    """Return the number of a trial in its storage, which other studies may share."""
    return trial._trial_id


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return True if a distribution has the value; False also for values of another type."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
