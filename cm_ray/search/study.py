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
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cm_ray.errors import UserError
from cm_ray.search.space import Sampler, Space

_STARTUP_SHARE = 3
"""A third of the trials, ten at most, are random before a model of the scores chooses."""
SCORE, COST = "score", "cost"
"""Objectives. SCORE is also an attribute: a score with its key, of the last seed."""
OWNER, FAILED, STOPPED, SCORES = "sweep", "failed", "stopped_at", "scores"
"""Attributes of trials: the id of the sweep that they belong to; why they failed; the step at which they were
stopped; the scores of all seeds."""


def open_storage(url: str, folder: Path) -> BaseStorage:
    """Open where trials are kept.

    url: an SQLAlchemy address (sqlite:////path/study.db, postgresql://…), or journal:/path/file for NFS and
    many writers; empty: study.db in the folder. Raises UserError when it cannot be opened.
    """
    if url.startswith("journal:"):
        path = Path(url.removeprefix("journal:").removeprefix("//")).expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    if not url:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        return RDBStorage(url or default_storage(folder))
    except (SQLAlchemyError, ImportError, ArgumentError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--storage {url} cannot be opened: {reason}") from error


def default_storage(folder: Path) -> str:
    """Return the address of the study in a sweep's folder."""
    return f"sqlite:///{folder.absolute() / 'study.db'}"


def open_sampler(name: Sampler, *, seed: int, trials: int, objectives: int) -> BaseSampler:
    """Return who chooses settings. Raises UserError when it cannot have so many objectives."""
    startup = max(1, min(10, trials // _STARTUP_SHARE))
    if name == "gp" and objectives > 1:
        raise UserError("--sampler gp has one objective: take tpe or nsga2 for two.")
    if name == "nsga2" and objectives == 1:
        raise UserError("--sampler nsga2 is for two objectives: take tpe, gp, random or grid for one.")
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
    name: str, storage: BaseStorage, sampler: BaseSampler, objectives: Sequence[str]
) -> optuna.Study:
    """Make or find a study. Raises UserError when the one that is there has other objectives."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),  # early stopping is Tune's
        directions=["minimize"] * len(objectives),
        load_if_exists=True,
    )
    if (there := study.user_attrs.get("objectives", list(objectives))) != list(objectives):
        raise UserError(f"The study {name} minimizes {' and '.join(there)}: name another --study.")
    if "objectives" not in study.user_attrs:
        study.set_user_attr("objectives", list(objectives))
        with optuna_experiments():
            study.set_metric_names(list(objectives))
    return study


def enqueue(study: optuna.Study, space: Space, sampler: Sampler, owner: str) -> None:
    """Put trial 0, or the whole grid, before all else, once."""
    for point in space.grid() if sampler == "grid" else [space.start()]:
        study.enqueue_trial(point, user_attrs={OWNER: owner}, skip_if_exists=True)


def next_trial(study: optuna.Study, owner: str) -> optuna.Trial:
    """Begin a trial. It bears its owner before it runs, so that a kill leaves none that nobody finds."""
    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial({}, user_attrs={OWNER: owner})
    trial = study.ask()
    if trial.user_attrs.get(OWNER) != owner:  # another sweep on the study has enqueued it
        trial.set_user_attr(OWNER, owner)
    return trial


OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""Scored, stopped early, failed."""


def trials_of(study: optuna.Study, owner: str, *states: TrialState) -> list[FrozenTrial]:
    """Return a sweep's trials in some states: others may share the study."""
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in trials if trial.user_attrs.get(OWNER) == owner]
