"""A training run on a cluster, from the data to the registered model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.scorer import PoolScorer
from cm_ray.cluster.pool.sizing import actors_like
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.runtime.plan import WorkerPlan, changes_of
from cm_ray.cluster.training.fit import fit, plan_training
from cm_ray.cluster.training.gauges import TrainingGauges
from cm_ray.cluster.training.prepare import PreparedData, prepare_shards
from cm_ray.cluster.training.workers import TrainingTask
from cm_ray.data.interface.classes import classes_in_words
from cm_ray.errors import setting
from cm_ray.evaluation.conclusion import Conclusion, summary
from cm_ray.evaluation.from_settings import evaluation_labels, extractor_opener
from cm_ray.evaluation.reference import Shards
from cm_ray.metrics.score import Score
from cm_ray.own_code import allow_given
from cm_ray.phases import phase
from cm_ray.recipes.initial_weights import planned_weights_warning
from cm_ray.recipes.recipe import Recipe, check_models_named
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.console import Progress, command, followed, say
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.lineage import write_lineage
from cm_ray.runs.remote_run import open_run
from cm_ray.runs.resources import Resources
from cm_ray.storage.files import remove
from cm_ray.tracking import Tracker, open_tracker, status_of
from cm_ray.training.arithmetic import slow_arithmetic
from cm_ray.training.conclude import conclude
from cm_ray.training.snapshots import disk_use
from cm_ray.training.specification import check_before_images, model_spec
from cm_ray.training.starting_models import prepare_teachers

Watch = Callable[[dict[str, Any]], bool]
"""A callback that gets every new row of metrics.jsonl, in a thread of its own; True stops the training."""


def train(config: Recipe, watch: Watch | None = None, prepared: PreparedData | None = None) -> None:
    """Train a model, sample, score, track and register it. The same call resumes an interrupted run.

    config: the recipe; all files are in its directory `run_dir`, which may be an address. prepared: see
    `prepare_shards`. Raises Stopped when `watch` returns True; the run can then be resumed. Raises UserError
    on bad input, on code that a file names alone, on workers that do not fit on the cluster and on a training
    that cannot continue.
    """
    allow_given(config)
    check_models_named(config)
    check_before_images(config)
    run = open_run(config.run_dir, config.name)
    with run.locked():
        run.check_same(config)
        tracker = open_tracker(config, run)  # before Ray starts, so that its errors appear at once
        with connected():
            Run(config, run, watch, prepared).finish(tracker)


class Stopped(Exception):
    """The callback of `train` stopped the training."""


class Run:
    """A training run on a connected cluster."""

    def __init__(
        self,
        config: Recipe,
        run: RunDirectory,
        watch: Watch | None = None,
        prepared: PreparedData | None = None,
    ) -> None:
        self.config, self.run = config, run
        self.watch = watch
        self.opener = extractor_opener(config.evaluation)
        self.extractor = self.opener("cpu") if self.opener else None  # missing weights are an error at once
        self.plan = None if run.result_file.exists() else self._planned()
        phase("reading the data set")
        self.shards, self.manifest = prepare_shards(config.data, prepared)
        spec = model_spec(config, self.manifest)
        evaluation_labels(config.evaluation, spec, self.manifest, say)
        prepare_teachers(config, spec, run, say)
        run.clean()
        run.claim(config)  # after all checks, so that a mistyped command writes nothing
        write_lineage(run, self.manifest)
        if self.plan is not None:
            self.plan.resources.save(run.root)
        self.spec = spec
        if warning := planned_weights_warning(config):
            say(f"warning: {warning}")
        if use := disk_use(config, spec):
            say(use)
        classes = classes_in_words(self.manifest.class_names, self.manifest.class_counts)
        workers = f"; {self.plan}" if self.plan else ""
        say(f"{run.root}: {self.manifest.count} images of {self.manifest.source}, {classes}{workers}")
        if self.manifest.class_names and not config.network.conditional:
            say(f"The labels of the images are not used: {setting('network.conditional')} is off.")

    def finish(self, tracker: Tracker) -> None:
        """Train, export, score and register the model, skipping steps that are done."""
        try:
            if self.plan is not None:
                self._conclude(self._train(tracker, self.plan))
            tracker.sync()
            self._register(tracker)
        except Stopped:
            tracker.finish("KILLED")
            raise
        except BaseException as error:
            tracker.finish(status_of(error))
            raise
        tracker.finish("FINISHED")
        say(f"{summary(self.run)}\n  try: {command('cm-ray', 'sample', self.run.root, '--samples', 25)}")

    def _planned(self) -> WorkerPlan:
        """Return the plan of the workers, on the device that the run began on; say what is not as it was."""
        before = Resources.load(self.run.root)
        plan = plan_training(self.config.cluster, before)
        if before and (changes := changes_of(before, plan.resources)):
            say(f"The run goes on with {changes}, so that it ends with the same model to rounding alone.")
        return plan

    def _train(self, tracker: Tracker, plan: WorkerPlan) -> WorkerPlan:
        """Train to the last step; return the plan of the workers that took it."""
        steps = CheckpointStore(self.run.checkpoints, self.config.checkpoint.keep).steps()
        if steps and steps[-1] >= self.config.steps and self.config.steps in self.run.scored_steps():
            return plan
        if steps:
            say(f"resuming from step {steps[-1]}")
        if not plan.use_gpu and (warning := slow_arithmetic(self.config.precision, "cpu")):
            say(f"warning: {warning}")  # measured here: nodes of a cluster have CPUs of one kind, as a rule
        task = TrainingTask(
            config=self.config,
            spec=self.spec,
            plan=plan,
            run=self.run,
            shards=self.shards,
            stoppable=self.watch is not None,
        )
        progress = Progress(self.config.steps)
        gauges = TrainingGauges(self.config.name, self.config.steps)
        remove(self.run.stop_file)
        try:
            consumers = (progress.show, gauges.show, lambda row: self._send(tracker), self._request_stop)
            with followed(self.run, *consumers):
                plan = fit(task)
        finally:
            progress.close()
        if self.run.stop_file.exists() and self.config.steps not in self.run.scored_steps():
            raise Stopped
        return plan

    def _send(self, tracker: Tracker) -> None:
        """Send new rows, and remember at the run's address what was sent."""
        tracker.sync()
        self.run.publish()

    def _request_stop(self, row: dict[str, Any]) -> None:
        """Create the stop file when the callback returns True for a row, or raises."""
        if self.watch is None:
            return
        stop = True
        try:
            stop = self.watch(row)
        finally:
            if stop:
                self.run.stop_file.touch()

    def _conclude(self, plan: WorkerPlan) -> None:
        """Choose and export an average of the weights, then sample from it and score it on the cluster."""
        with SamplerPool(self.opener, actors_like(plan)) as pool:
            conclude(
                Conclusion(
                    recipe=self.config,
                    run=self.run,
                    spec=self.spec,
                    data=Shards(self.shards, self.manifest),
                    scorer=PoolScorer(pool, self.extractor, self.run.scoring_work),
                    say=say,
                )
            )

    def _register(self, tracker: Tracker) -> None:
        scores = self.run.result()["scores"]
        registered = tracker.register(Score.from_file(scores[0], self.run.result_file) if scores else None)
        if registered is not None:
            say(f"{registered.uri}: {registered.reason}")
