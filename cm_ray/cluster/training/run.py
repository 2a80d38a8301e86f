"""A training run from data to registered model: what every training job calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.result import Wanted
from cm_ray.cluster.pool.sizing import as_workers
from cm_ray.cluster.runtime.connect import connected, node_resources, plan
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.cluster.training.workers import Task, fit
from cm_ray.metrics.score import Score
from cm_ray.recipes.recipe import Recipe, check_models_named
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.console import Progress, followed, say
from cm_ray.runs.directory import RunDirectory, run_place
from cm_ray.runs.lineage import remember_lineage
from cm_ray.sampling.requests import Request
from cm_ray.scoring.conclusion import Conclusion, Generated, summary
from cm_ray.scoring.evaluator import extractor_opener
from cm_ray.scoring.reference import Shards
from cm_ray.storage.files import read_json, remove
from cm_ray.tracking import Tracker, open_tracker
from cm_ray.training.specification import model_spec
from cm_ray.training.starting_models import prepare_teachers

Watch = Callable[[dict[str, Any]], bool]
"""Gets every new row of metrics.jsonl, from a thread of its own; returns whether training should stop."""


def train(config: Recipe, watch: Watch | None = None) -> None:
    """Train, sample, score, track and register, in the run directory; the same call goes on after a kill.

    Raises Stopped when `watch` says so: the run is closed as it is, and another call would go on. Raises
    UserError on bad input, an impossible plan or a training that cannot go on.
    """
    check_models_named(config)
    run = RunDirectory(run_place(config.run_dir, config.name))
    with run.locked():
        run.check_same(config)
        tracker = open_tracker(config, run)  # its errors need not wait for Ray
        with connected():
            Run(config, run, watch).finish(tracker)


class Stopped(Exception):
    """A training was stopped by who watches it."""


class Run:
    """One run on a connected cluster."""

    def __init__(self, config: Recipe, run: RunDirectory, watch: Watch | None = None) -> None:
        self.config, self.run = config, run
        self.watch = watch
        self.opener = extractor_opener(config.evaluation)
        self.extractor = self.opener("cpu") if self.opener else None  # missing weights are told at once
        workers = plan(config.cluster, node_resources())
        self.shards, self.manifest = prepare_shards(config.data)
        spec = model_spec(config, self.manifest)
        prepare_teachers(config, spec, run)
        run.clean()
        run.claim(config)  # not before all is known to fit: a mistyped command leaves no trace
        remember_lineage(run, self.manifest)
        self.task = Task(
            config=config, spec=spec, plan=workers, run=run, shards=self.shards, stoppable=watch is not None
        )
        self.conclusion = Conclusion(
            recipe=config,
            run=run,
            spec=spec,
            data=Shards(self.shards, self.manifest),
            extractor=self.extractor,
            say=say,
        )
        say(f"{run.root}: {self.manifest.count} images of {self.manifest.source}, {workers}")

    def finish(self, tracker: Tracker) -> None:
        """Do what is left to do: train, export, score, register."""
        try:
            self._train(tracker)
            if not self.run.result_file.exists():
                self._conclude()
            tracker.sync()
            self._register(tracker)
        except Stopped:
            tracker.finish("KILLED")
            raise
        except BaseException:
            tracker.finish("FAILED")
            raise
        tracker.finish("FINISHED")
        say(f"{summary(self.run)}\n  try: cm-ray sample {self.run.root} --samples 25")

    def _train(self, tracker: Tracker) -> None:
        steps = CheckpointStore(self.run.checkpoints, self.config.checkpoint.keep).steps()
        if steps and steps[-1] >= self.config.steps and self._last_row_is_there():
            return
        if steps:
            say(f"going on from step {steps[-1]}")
        progress = Progress(self.config.steps)
        remove(self.run.stop_file)
        try:
            with followed(self.run, progress.show, lambda row: tracker.sync(), self._ask):
                fit(self.task)
        finally:
            progress.close()
        if self.run.stop_file.exists() and not self._last_row_is_there():
            raise Stopped

    def _ask(self, row: dict[str, Any]) -> None:
        if self.watch is not None and self.watch(row):
            self.run.stop_file.touch()

    def _last_row_is_there(self) -> bool:
        return any(row["step"] == self.config.steps and "scores" in row for row in self.run.read_metrics())

    def _conclude(self) -> None:
        """Export the best averaged weights, sample and score them on the cluster."""
        step = self.conclusion.export()
        wanted: Wanted = frozenset(["images", "statistics"] if self.extractor else ["images"])
        with SamplerPool(self.opener, as_workers(self.task.plan)) as pool:
            model = pool.put(self.run.model)

            def generate(request: Request) -> Generated:
                gathered = pool.generate(model, request, wanted)
                assert gathered.images is not None
                return Generated(gathered.images, gathered.statistics)

            self.conclusion.score(step, generate)

    def _register(self, tracker: Tracker) -> None:
        scores = read_json(self.run.result_file)["scores"]
        registered = tracker.register(Score.from_row(scores[0]) if scores else None)
        if registered is not None:
            say(f"{registered.uri}: {registered.reason}")
