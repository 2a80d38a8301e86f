"""Optuna's part of a sweep: storages, samplers, studies, and the attributes of trials."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cm_ray.errors import UserError, setting
from cm_ray.storage.sqlite import sqlite_address
from cm_ray.sweeps.space import Sampler, Space

_STARTUP_SHARE = 3
"""One in this many trials, at most ten in all, is random; a model of the scores chooses the others."""
SCORE, COST = "score", "cost"
"""Objectives. SCORE is also an attribute of trials: the score of the last seed, with its key."""
FAILED, STOPPED, SCORES = "failed", "stopped_at", "scores"
"""Attributes of trials: the reason of a failure; the step of an early stop; the scores of all seeds."""
_OWNER = "sweep"
"""Attribute of a study: the id of the sweep that it belongs to."""
_JOURNAL = "journal:"
_SEARCHER = setting("searcher")


def open_storage(url: str, folder: Path) -> BaseStorage:
    """Open the storage of a study.

    url: an SQLAlchemy address (sqlite:////path/study.db, postgresql://…), or journal:/path/file for NFS and
    many writers; empty: study.db in the folder. Raises UserError when it cannot be opened.
    """
    try:
        if url.startswith(_JOURNAL):
            path = _journal(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        if not url:
            folder.mkdir(parents=True, exist_ok=True)
        return RDBStorage(url or default_storage(folder))
    except (SQLAlchemyError, ImportError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{setting('storage')} {shown_storage(url)} cannot be opened: {reason}") from error


def _journal(url: str) -> Path:
    return Path(url.removeprefix(_JOURNAL).removeprefix("//")).expanduser().absolute()


def shown_storage(url: str) -> str:
    """Return the address of a storage as optuna-dashboard takes it, without its password."""
    if url.startswith(_JOURNAL):
        return str(_journal(url))
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def default_storage(folder: Path) -> str:
    """Return the address of the SQLite storage in a sweep's folder."""
    return sqlite_address(folder / "study.db")


def open_sampler(name: Sampler, *, seed: int, trials: int, objectives: int) -> BaseSampler:
    """Return the Optuna sampler of that name. Raises UserError when it does not support the objectives.

    trials: the number of all trials. objectives: their number, 1 or 2.
    """
    startup = max(1, min(10, trials // _STARTUP_SHARE))
    if name == "gp" and objectives > 1:
        raise UserError(f"{_SEARCHER} gp has one objective: use tpe or nsga2 for two.")
    if name == "nsga2" and objectives == 1:
        raise UserError(f"{_SEARCHER} nsga2 is for two objectives: use tpe, gp, random or grid for one.")
    with optuna_experiments():
        match name:
            case "tpe":
                # group: parameters that exist together are modelled together.
                # constant_liar: concurrent trials differ.
                return TPESampler(
                    seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=startup)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))
            case _:  # random, and grid, whose trials are all enqueued at the start
                return RandomSampler(seed=seed)


@contextlib.contextmanager
def optuna_experiments() -> Iterator[None]:
    """Ignore Optuna's warnings about experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def open_study(
    name: str, storage: BaseStorage, sampler: BaseSampler, objectives: Sequence[str], owner: str
) -> optuna.Study:
    """Create the study of a sweep, or load it from the storage.

    owner: the sweep's id. Raises UserError when the study belongs to another sweep, whose trials the sampler
    and the report would count as trials of this one.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),  # Ray Tune stops trials
        directions=["minimize"] * len(objectives),
        load_if_exists=True,
    )
    there = study.user_attrs.get(_OWNER)
    if there != owner and (there or trials_in(study) or len(study.directions) != len(objectives)):
        raise UserError(
            f"The study {name} in this storage belongs to another sweep: name another {setting('study')}."
        )
    return study


def begin(study: optuna.Study, space: Space, sampler: Sampler, owner: str) -> None:
    """Mark a study as a sweep's, and enqueue trial 0, or the whole grid, unless that was done before."""
    study.set_user_attr(_OWNER, owner)
    with optuna_experiments():
        study.set_metric_names(list(space.minimize))
    points = space.grid() if sampler == "grid" else [space.start()]
    for point in points[len(trials_in(study)) :]:  # a killed call may have enqueued the first of them
        study.enqueue_trial(point)


OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""States of trials that have ended: scored, stopped early, failed."""


def trials_in(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Return a study's trials in the given states, or in all."""
    return study.get_trials(deepcopy=False, states=states or None)
