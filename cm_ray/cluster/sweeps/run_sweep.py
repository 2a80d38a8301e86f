"""A sweep on the cluster: trials run by Ray Tune, settings chosen by Optuna, a study to continue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from cm_ray.cluster.pool.reference import prepare_statistics
from cm_ray.cluster.pool.sizing import actors_like
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.runtime.nodes import check_on_nodes
from cm_ray.cluster.sweeps.asha import RememberingASHA
from cm_ray.cluster.sweeps.identity import id_of_sweep, identity_of
from cm_ray.cluster.sweeps.searcher import StudySearch
from cm_ray.cluster.sweeps.sweep_plan import check_sweep, share
from cm_ray.cluster.sweeps.sweep_table import SweepTable
from cm_ray.cluster.sweeps.sweep_trial import Trials, run_trial
from cm_ray.cluster.sweeps.tidying import Tidier
from cm_ray.cluster.training.fit import plan_training
from cm_ray.cluster.training.prepare import PreparedData, prepare_shards
from cm_ray.cluster.training.run import train
from cm_ray.errors import UserError
from cm_ray.evaluation.from_settings import extractor_opener
from cm_ray.own_code import allow_given
from cm_ray.recipes.recipe import check_models_named
from cm_ray.recipes.sections import EXPERIMENT
from cm_ray.remote.witness import witnessed
from cm_ray.reports.sweep_report import best_trial, sweep_note, write_sweep_report
from cm_ray.runs.console import command, say
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.places import run_place
from cm_ray.runs.resources import Resources
from cm_ray.settings.tree import override
from cm_ray.storage.files import write_json
from cm_ray.sweeps.internals import id_in_storage
from cm_ray.sweeps.options import Sweep
from cm_ray.sweeps.space import Sampler, Space
from cm_ray.sweeps.space_checks import check_space
from cm_ray.sweeps.space_files import load_space
from cm_ray.sweeps.study import (
    OVER,
    begin,
    default_storage,
    open_sampler,
    open_storage,
    open_study,
    shown_storage,
    trials_in,
)
from cm_ray.tracking import RunGroup, resend
from cm_ray.training.specification import model_spec
from cm_ray.training.starting_models import check_teachers

_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the job at once
    "RAY_AIR_NEW_OUTPUT": "0",  # SweepTable replaces Ray's output
}


def sweep(settings: Sweep, changes: Mapping[str, Any], space: Space | None = None) -> RunDirectory:
    """Run the trials of a sweep, write its report, and register the best model.

    changes: settings of all trials by dotted path. space: the search space; by default the one that the
    settings name. The run directory gets study.db, trials/, report.md with
    its pictures, and best.json. The same call continues a killed sweep: finished trials are kept, and
    interrupted ones continue from their checkpoints. Raises UserError on bad input.
    """
    if space is None:
        space = load_space(settings.space, dict(changes))
    else:
        space = replace(space, base=override(space.base, changes))
        check_space(space)
    allow_given(space.base)
    check_models_named(space.base)
    run = RunDirectory(run_place(settings.run_dir, f"sweep-{Path(settings.space).stem}"))
    with run.locked():
        run.check_owner(run.sweep_file)
        driver = _Driver(settings, space, run)
        with connected():
            driver.finish()
    return run


class _Driver:
    """A sweep from its options to its report."""

    def __init__(self, settings: Sweep, space: Space, run: RunDirectory) -> None:
        self.settings, self.space, self.run = settings, space, run
        self.sampler: Sampler = settings.searcher or space.sampler
        self.scheduler = check_sweep(settings, space, self.sampler)
        self.seeds = settings.seeds or space.seeds
        self.count = len(space.grid()) if self.sampler == "grid" else settings.trials or space.trials
        self.identity = identity_of(settings, space, self.sampler, self.seeds)
        self.owner = id_of_sweep(run, self.identity)
        self.group = RunGroup(run.root, name=run.root.name, uri=settings.tracking_uri, experiment=EXPERIMENT)
        self.study = self._open_study()

    def _open_study(self) -> optuna.Study:
        settings = self.settings
        calls = len(list((self.run.root / "tune").glob("*")))  # calls draw different settings
        chooser = open_sampler(
            self.sampler,
            seed=settings.seed + calls,
            trials=self.count,
            objectives=len(self.space.minimize),
        )
        storage = open_storage(settings.storage, self.run.root)
        name = settings.study or self.run.root.name
        return open_study(name, storage, chooser, self.space.minimize, self.owner)

    def finish(self) -> None:
        """Run the remaining trials, write the report, and register the best model."""
        with self.group.closed():
            self._search()
            self._report()

    def _search(self) -> None:
        over = len(trials_in(self.study, *OVER))
        interrupted = trials_in(self.study, TrialState.RUNNING)
        if (left := max(len(interrupted), self.count - over)) == 0:
            return
        trials, concurrent = self._trials(left)
        write_json(self.run.sweep_file, {"id": self.owner, **self.identity})
        # only after all checks, so that a mistyped command leaves no trace
        begin(self.study, self.space, self.sampler, self.owner)
        say(
            f"{self.run.root}: {self.count} trials of {self.space.question!r}, {over} done, "
            f"{len(interrupted)} go on; {concurrent} at once, {self.seeds} seeds, {self.sampler}"
        )
        pages = self._dashboard(), command("tensorboard", "--logdir", self.run.root / "tune")
        say("  watch: " + "   ".join(pages))
        searcher = StudySearch(
            self.study,
            self.space.suggest,
            self.space.minimize,
            interrupted=[id_in_storage(trial) for trial in interrupted],
            outcome=trials.outcome,
            told=Tidier(self.study, trials).tidy,
        )
        self._tune(trials, searcher, left, concurrent)
        if untold := len(trials_in(self.study, TrialState.RUNNING)):
            raise UserError(
                f"{untold} trials have not ended, or {self._storage()} did not record their ends: repeat the "
                "command to continue them."
            )

    def _storage(self) -> str:
        return shown_storage(self.settings.storage or default_storage(self.run.root))

    def _dashboard(self) -> str:
        """Return the command that shows the study in a browser."""
        return command("optuna-dashboard", self._storage())

    def _tune(self, trials: Trials, searcher: StudySearch, left: int, concurrent: int) -> None:
        """Run the trials that are left, on nodes that see the folder of the sweep."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        table = SweepTable(self.count, trials)
        try:
            with witnessed(self.run.root) as seen:
                check_on_nodes(seen)
                self._tuner(replace(trials, seen=seen), searcher, table, left, concurrent).fit()
        finally:
            table.close()

    def _tuner(
        self, trials: Trials, searcher: StudySearch, table: SweepTable, left: int, concurrent: int
    ) -> tune.Tuner:
        tunes = self.run.root / "tune"
        return tune.Tuner(
            tune.with_resources(partial(run_trial, trials=trials), {"CPU": 0.001}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=self._scheduler(trials),
                num_samples=left,
                max_concurrent_trials=concurrent,
                reuse_actors=False,
                trial_name_creator=lambda trial: f"{trial.config['trial']:04d}",
                trial_dirname_creator=lambda trial: f"{trial.config['trial']:04d}",
            ),
            run_config=tune.RunConfig(
                name=f"call-{len(list(tunes.glob('*'))) + 1}",
                storage_path=str(tunes),
                failure_config=tune.FailureConfig(max_failures=self.settings.retries),
                callbacks=[table],
                verbose=0,
            ),
        )

    def _scheduler(self, trials: Trials) -> TrialScheduler:
        if self.scheduler == "none":
            return FIFOScheduler()
        base = self.space.base
        return RememberingASHA(
            self.study,
            trials.stop,
            first=self.settings.grace or self.space.grace or base.evaluation.every or base.steps,
            last=base.steps,
            reduction=self.settings.reduction,
        )

    def _trials(self, left: int) -> tuple[Trials, int]:
        """Return the properties of all trials and the number of concurrent ones; prepare shared files."""
        base, before = self.space.base, Resources.load(self.run.root)
        shards, manifest = prepare_shards(base.data)
        if not self.run.sweep_file.is_file():  # later calls use the copies of the teacher in the trials
            check_space(self.space, fits=partial(model_spec, data=manifest))
            check_teachers(base, model_spec(base, manifest), self.run, say)
        if opener := extractor_opener(base.evaluation):
            actors = actors_like(plan_training(base.cluster, before))
            prepare_statistics(opener, actors, shards, manifest)  # once for all trials
        concurrent, part = share(self.space, self.settings.concurrent, left, before)
        replace(part.resources, workers=base.cluster.workers.most).save(self.run.root)
        changes = {
            "cluster.use_gpu": "yes" if part.use_gpu else "no",
            "cluster.cpus_per_worker": part.cpus_per_worker,
            "cluster.threads": part.threads,
            "tracking.uri": self.group.uri if self.settings.tracking_uri != "none" else "none",
            "tracking.experiment": EXPERIMENT,
            "tracking.parent_run": self.group.run_id,
            "tracking.model_name": "",
        }
        return replace(self._common(changes), prepared=PreparedData(base.data, shards)), concurrent

    def _common(self, changes: Mapping[str, Any]) -> Trials:
        return Trials(
            space=self.space, folder=self.run.root, seeds=self.seeds, changes=changes, cwd=Path.cwd()
        )

    def _report(self) -> None:
        trials, ended = self._common({}), trials_in(self.study, *OVER)
        self._close_unfinished(trials)
        files = write_sweep_report(self.study, ended, self.space, self.run.root, trials.run, seeds=self.seeds)
        best = best_trial(ended)
        values = dict(zip(self.space.minimize, best.values, strict=True)) if best else {}
        self.group.log(
            params={"question": self.space.question, "sampler": self.sampler, "seeds": self.seeds},
            metrics={**values, "trials": float(len(ended))},
            files=files,
            note=sweep_note(ended, self.space, best, self.seeds, self._dashboard()),
        )
        if best is None:
            raise UserError(f"No trial has finished: see the errors in {files[0]}.")
        self._register(trials, best)

    def _close_unfinished(self, trials: Trials) -> None:
        """Send the final state of trainings whose processes died to MLflow."""
        if self.settings.tracking_uri == "none":
            return
        for trial in trials_in(self.study, TrialState.FAIL):
            for run in (trials.run(trial.number, seed) for seed in range(self.seeds)):
                if run.config_file.is_file() and not run.result_file.is_file():
                    try:
                        resend(run)
                    except UserError as error:
                        say(f"warning: {error}")

    def _register(self, trials: Trials, best: optuna.trial.FrozenTrial) -> None:
        """Register the best seed's model of the best setting under the base's name."""
        if not (name := self.space.base.tracking.model_name) or self.settings.tracking_uri == "none":
            return
        scores = best.user_attrs["scores"]
        run = trials.run(best.number, scores.index(min(scores)))
        allow_given(self.space.config(best.params))
        config = run.config()
        train(replace(config, tracking=replace(config.tracking, model_name=name)))
