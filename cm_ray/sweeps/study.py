"""Optuna's part of a sweep: where studies are stored, who chooses settings, what became of each trial."""

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

from cm_ray.errors import UserError
from cm_ray.sweeps.space import Sampler, Space

_STARTUP_SHARE = 3
"""A third of the trials, ten at most, are random before a model of the scores chooses."""
SCORE, COST = "score", "cost"
"""Objectives. SCORE is also an attribute: a score with its key, of the last seed."""
FAILED, STOPPED, SCORES = "failed", "stopped_at", "scores"
"""Attributes of trials: why they failed; the step at which they were stopped; the scores of all seeds."""
_OWNER = "sweep"
"""Attribute of a study: the id of the sweep that it belongs to."""
_JOURNAL = "journal:"


def open_storage(url: str, folder: Path) -> BaseStorage:
    """Open where trials are kept.

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
        raise UserError(f"--storage {shown_storage(url)} cannot be opened: {reason}") from error


def _journal(url: str) -> Path:
    return Path(url.removeprefix(_JOURNAL).removeprefix("//")).expanduser().absolute()


def shown_storage(url: str) -> str:
    """Return an address of trials as optuna-dashboard takes it, without its password."""
    if url.startswith(_JOURNAL):
        return str(_journal(url))
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def default_storage(folder: Path) -> str:
    """Return the address of the study in a sweep's folder."""
    return f"sqlite:///{folder.absolute() / 'study.db'}"


def open_sampler(name: Sampler, *, seed: int, trials: int, objectives: int) -> BaseSampler:
    """Return who chooses settings. Raises UserError when it cannot have so many objectives."""
    startup = max(1, min(10, trials // _STARTUP_SHARE))
    if name == "gp" and objectives > 1:
        raise UserError("--searcher gp has one objective: take tpe or nsga2 for two.")
    if name == "nsga2" and objectives == 1:
        raise UserError("--searcher nsga2 is for two objectives: take tpe, gp, random or grid for one.")
    with optuna_experiments():
        match name:
            case "tpe":
                # group: conditional parameters belong together. constant_liar: concurrent trials differ.
                return TPESampler(
                    seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=startup)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))
            case _:  # a grid is enqueued as a whole
                return RandomSampler(seed=seed)


@contextlib.contextmanager
def optuna_experiments() -> Iterator[None]:
    """Use what Optuna calls experimental, knowing it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def open_study(
    name: str, storage: BaseStorage, sampler: BaseSampler, objectives: Sequence[str], owner: str
) -> optuna.Study:
    """Make or find the study of a sweep.

    owner: the sweep's id. Raises UserError when the study that is there is another sweep's: its trials would
    be mistaken for this one's, by samplers and by people.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),  # early stopping is Tune's
        directions=["minimize"] * len(objectives),
        load_if_exists=True,
    )
    there = study.user_attrs.get(_OWNER)
    if there != owner and (there or trials_in(study) or len(study.directions) != len(objectives)):
        raise UserError(f"The study {name} in this storage belongs to another sweep: name another --study.")
    return study


def begin(study: optuna.Study, space: Space, sampler: Sampler, owner: str) -> None:
    """Make a study a sweep's, and put trial 0, or the whole grid, before all else, once."""
    study.set_user_attr(_OWNER, owner)
    with optuna_experiments():
        study.set_metric_names(list(space.minimize))
    for point in space.grid() if sampler == "grid" else [space.start()]:
        study.enqueue_trial(point, skip_if_exists=True)


OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""Scored, stopped early, failed."""


def trials_in(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Return a study's trials in the given states, or in all."""
    return study.get_trials(deepcopy=False, states=states or None)
