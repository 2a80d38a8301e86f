"""A training run from data to registered model: what every training job calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cm_ray.cluster.pool.pool import PutModel, SamplerPool
from cm_ray.cluster.pool.result import Gathered, Wanted
from cm_ray.cluster.pool.sizing import as_workers
from cm_ray.cluster.runtime.connect import connected, node_resources, plan
from cm_ray.cluster.runtime.console import Progress, followed, say
from cm_ray.cluster.train.prepare import lineage, model_spec, prepare_shards
from cm_ray.cluster.train.workers import Task, fit
from cm_ray.errors import UserError
from cm_ray.metrics.extractors.registry import Extractor
from cm_ray.metrics.frechet import bias_warning
from cm_ray.metrics.score import Score
from cm_ray.networks.model import sampling_of, save_model
from cm_ray.recipes.config import TrainConfig
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.directory import RunDirectory, default_run_dir
from cm_ray.sampling.pictures import save_samples
from cm_ray.sampling.requests import Request
from cm_ray.sampling.text import Sampling
from cm_ray.scoring.reference import reference_statistics
from cm_ray.scoring.while_training import extractor_opener, noise_distance, score_samples
from cm_ray.storage.files import read_json, remove, write_json
from cm_ray.tracking import Tracker, open_tracker
from cm_ray.training.starting_models import prepare_teachers

Watch = Callable[[dict[str, Any]], bool]
"""Gets every new row of metrics.jsonl, from a thread of its own; returns whether training should stop."""
FINAL_SEED = 1
"""Added to the run's seed for the final scores: the best checkpoint was chosen on other noise."""


def train(config: TrainConfig, watch: Watch | None = None) -> None:
    """Train, sample, score, track and register, in the run directory; the same call goes on after a kill.

    Raises Stopped when `watch` says so: the run is closed as it is, and another call would go on. Raises
    UserError on bad input, an impossible plan or a training that cannot go on.
    """
    run = RunDirectory(Path(config.run_dir).absolute() if config.run_dir else default_run_dir(config.name))
    with run.locked():
        run.check_same(config)
        tracker = open_tracker(config, run)  # its errors need not wait for Ray
        with connected():
            Run(config, run, watch).finish(tracker)


class Stopped(Exception):
    """A training was stopped by who watches it."""


class Run:
    """One run on a connected cluster."""

    def __init__(self, config: TrainConfig, run: RunDirectory, watch: Watch | None = None) -> None:
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
        self._remember_lineage()
        self.task = Task(
            config=config, spec=spec, plan=workers, run=run, shards=self.shards, stoppable=watch is not None
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
        say(_summary(self.run))

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
        """Export the best averaged weights, sample and score them, and write result.json last."""
        started = time.perf_counter()
        step = self._export()
        with SamplerPool(self.opener, as_workers(self.task.plan)) as pool:
            model = pool.put(self.run.model)
            samples = [
                self._sample(pool, model, sampling_of(self.task.spec, text))
                for text in self.config.evaluation.samplers
            ]
        rows = [row for row in self.run.read_metrics() if "seconds" in row]
        write_json(
            self.run.result_file,
            {
                "name": self.config.name,
                "steps": self.config.steps,
                "model_step": step,
                "scores": [sampled.score.to_row() for sampled in samples if sampled.score],
                "class_shares": samples[0].class_shares,
                "clipped_noise": samples[0].noise_distance,
                "timings": {
                    "training_s": rows[-1]["seconds"] if rows else None,
                    "images_per_s": rows[-1]["images_per_s"] if rows else None,
                    "sampling_and_scoring_s": round(time.perf_counter() - started, 3),
                },
                "paths": {"model": str(self.run.model), "samples": [str(s.grid) for s in samples]},
            },
        )

    def _export(self) -> int:
        """Write the averaged weights of the best checkpoint, or of the last; return its step."""
        store = CheckpointStore(self.run.checkpoints, self.config.checkpoint.keep)
        step = store.best_step() or store.steps()[-1]
        checkpoint = store.load(step)
        save_model(self.run.model, self.task.spec, checkpoint.group("ema0"))
        return step

    def _sample(self, pool: SamplerPool, model: PutModel, sampling: Sampling) -> Sampled:
        evaluation = self.config.evaluation
        request = Request(
            count=evaluation.samples or (self.manifest.count if self.extractor else evaluation.grid**2),
            seed=self.config.seed + FINAL_SEED,
            sampling=sampling,
            unit=evaluation.batch_size,
        )
        wanted: Wanted = frozenset(["images", "statistics"] if self.extractor else ["images"])
        generated = pool.generate(model, request, wanted)
        assert generated.images is not None
        stem = self.run.samples / f"final-{sampling.file_name}"
        grid, _ = save_samples(generated.images, stem, most=evaluation.grid**2, columns=evaluation.grid)
        if self.extractor is None:
            return Sampled(grid)
        return self._score(self.extractor, generated, request, grid)

    def _score(self, extractor: Extractor, generated: Gathered, request: Request, grid: Path) -> Sampled:
        assert generated.statistics is not None
        assert generated.images is not None
        for count, what in ((request.count, "samples"), (self.manifest.count, "images of the reference")):
            if warning := bias_warning(count, extractor.dim, what):
                say(f"warning: {warning}")
        reference = reference_statistics(self.shards, extractor)
        return Sampled(
            grid,
            score_samples(generated.statistics, reference, extractor, request, self.manifest),
            class_shares(extractor, generated.images),
            noise_distance(extractor, reference, self.manifest, request.count),
        )

    def _register(self, tracker: Tracker) -> None:
        scores = read_json(self.run.result_file)["scores"]
        registered = tracker.register(Score.from_row(scores[0]) if scores else None)
        if registered is not None:
            say(f"{registered.uri}: {registered.reason}")

    def _remember_lineage(self) -> None:
        """Write where the run comes from; refuse to go on with other images."""
        found = lineage(self.manifest)
        if not self.run.lineage_file.exists():
            write_json(self.run.lineage_file, found)
            return
        before = read_json(self.run.lineage_file)
        if before["data.fingerprint"] != self.manifest.fingerprint:
            raise UserError(
                f"{self.run.root} was begun on other images than {self.shards} holds; give the same "
                "--data, or choose another --run-dir."
            )
        later = {f"continued.{name}": value for name, value in found.items() if before[name] != value}
        write_json(self.run.lineage_file, before | later)


@dataclass(frozen=True)
class Sampled:
    """What was made of one sampler."""

    grid: Path
    score: Score | None = None
    class_shares: list[float] | None = None
    noise_distance: float | None = None


def class_shares(extractor: Any, images: torch.Tensor) -> list[float] | None:
    """Return the share of each class among the samples, if the extractor is a classifier."""
    if not hasattr(extractor, "predict"):
        return None
    counts = torch.bincount(extractor.predict(images), minlength=10).double()
    return [round(share, 4) for share in (counts / len(images)).tolist()]


def _summary(run: RunDirectory) -> str:
    result = read_json(run.result_file)
    lines = [f"finished: {run.result_file}"]
    for row in result["scores"]:
        share = row["value"] / result["clipped_noise"]
        lines.append(
            f"  {row['name']}, {row['key']['sampler']}: {row['value']:.4g}  "
            f"({share:.1%} of clipped Gaussian noise)"
        )
    if result["class_shares"]:
        lines.append(f"  share of the rarest class: {min(result['class_shares']):.1%}")
    lines += [f"  samples: {path}" for path in result["paths"]["samples"]]
    lines.append(f"  try: cm-ray sample {run.root} --samples 25")
    return "\n".join(lines)
