"""The end of a training run: exports the best model, samples from it, scores it and writes result.json."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cm_ray.core.averages import PowerEMA
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import save_samples
from cm_ray.drawing.requests import Request, sample_units
from cm_ray.evaluation.evaluator import evaluation_labels, noise_distance, score_samples
from cm_ray.evaluation.lengths import LengthScoring, Measure, ScoredLength, length_request, reachable
from cm_ray.evaluation.reference import ScoredAgainst, reference_statistics
from cm_ray.metrics.extractors.extractor import Extractor, statistics_of_batches
from cm_ray.metrics.frechet import bias_warning
from cm_ray.metrics.score import Score
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.networks.model import SPEC, Model, ModelSpec, save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.console import command
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.snapshots import KeptAverages
from cm_ray.sampling.text import file_name
from cm_ray.settings.choices import word_of
from cm_ray.storage.files import read_json, write_json

FINAL_SEED = 1
"""Offset of the seed of the final scores: the best checkpoint is chosen on other noise."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Generated:
    """The samples of a request."""

    images: Tensor
    """Images, uint8 (n, c, h, w)."""
    statistics: FeatureStatistics | None
    """Statistics of the features of the images; None without an extractor."""


Generate = Callable[[Request], Generated]
"""A function that samples a request from the run's model, in this process or on a cluster."""


@dataclass(frozen=True)
class Sampled:
    """The samples of one sampler, and their scores."""

    grid: Path
    score: Score | None


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The end of a run whose training is finished."""

    recipe: Recipe
    run: RunDirectory
    spec: ModelSpec
    data: ScoredAgainst
    """The training data, which is the reference of the scores."""
    extractor: Extractor | None
    say: Say

    def best_step(self) -> int:
        """Return the step of the best checkpoint; of the last one without scores."""
        store = self._store()
        return store.best_step() or store.steps()[-1]

    def choose_length(self, step: int, measure: Measure) -> list[ScoredLength]:
        """Score the candidate lengths of power-function averages; return them, or nothing to choose from.

        Lengths that the snapshots do not make are left out. Without an extractor it says which average is
        exported instead.
        """
        averages = self.recipe.averages
        if not isinstance(averages, PowerEMA):
            return []
        if self.extractor is None:
            self.say(
                "Without an extractor the lengths of averages are not scored: the model is the average of "
                f"length {averages.lengths[0]:g}, the first that was tracked. To score others: "
                + command("cm-ray", "averages", self.run.root, "--extractor", "NAME")
            )
            return []
        kept = KeptAverages.of(self.run, self.recipe, step)
        candidates = reachable(kept, averages.candidates)
        if not candidates:
            return []
        scoring = LengthScoring(
            kept=kept,
            spec=self.spec,
            extractor=self.extractor,
            data=self.data,
            reference=reference_statistics(self.data, self.extractor),
            request=length_request(self.recipe, self.spec, self.data, samples=averages.samples),
            say=self.say,
        )
        return list(scoring.scores(candidates, measure))

    def export(self, step: int, length: float = 0.0) -> None:
        """Save the average that is sampled from as the run's model, taken after `step` steps.

        length: of a power-function average, its sigma_rel; 0: the first one that was tracked.
        """
        facts = self.recipe.average_facts(step)
        if length := length or facts["ema_length"]:
            weights = KeptAverages.of(self.run, self.recipe, step).weights(length)
        else:
            weights = self._store().load(step).group("ema0")
        spec = dataclasses.replace(self.spec, **facts | {"ema_length": length})
        save_model(self.run.model, spec, weights)
        if warning := initial_weights_warning(spec, f"{self.run.root}"):
            self.say(f"warning: {warning}")

    def score(self, model_step: int, generate: Generate) -> None:
        """Sample and score the exported model with every sampler of the recipe; write result.json last."""
        started = time.perf_counter()
        requests = [self._request(text) for text in self.recipe.evaluation.samplers]
        self._warn_of_bias(requests[0].count)
        reference = reference_statistics(self.data, self.extractor) if self.extractor else None
        shares, samples = None, []
        for number, request in enumerate(requests):
            generated = generate(request)
            samples.append(self._sampled(generated, request, reference))
            if number == 0:
                shares = class_shares(self.extractor, generated.images)
        rows = [row for row in self.run.read_metrics() if "seconds" in row]
        result = {
            "name": self.recipe.name,
            "steps": self.recipe.steps,
            "model_step": model_step,
            "average": self._average(),
            "scores": [sampled.score.to_row() for sampled in samples if sampled.score],
            "class_shares": shares,
            "clipped_noise": self._noise_distance(reference, requests[0].count),
            "timings": {
                "training_s": rows[-1]["seconds"] if rows else None,
                "images_per_s": rows[-1]["images_per_s"] if rows else None,
                "sampling_and_scoring_s": round(time.perf_counter() - started, 3),
            },
            "paths": {"model": str(self.run.model), "samples": [str(s.grid) for s in samples]},
        }
        write_json(self.run.result_file, result)

    def _store(self) -> CheckpointStore:
        return CheckpointStore(self.run.checkpoints, self.recipe.checkpoint.keep)

    def _request(self, text: str) -> Request:
        evaluation = self.recipe.evaluation
        return Request(
            count=evaluation.samples or (self.data.count if self.extractor else evaluation.grid**2),
            seed=self.recipe.seed + FINAL_SEED,
            sampler=sampler_of(self.spec, text),
            labels=evaluation_labels(evaluation, self.spec, self.data),
            unit=evaluation.batch_size,
            precision=self.recipe.precision,
        )

    def _sampled(
        self, generated: Generated, request: Request, reference: FeatureStatistics | None
    ) -> Sampled:
        """Write the pictures of a request, and score its samples if there is an extractor."""
        columns = self.recipe.evaluation.grid
        stem = self.run.samples / f"final-{file_name(request.sampler)}"
        labels = request.drawn_labels()
        grid, _ = save_samples(
            generated.images,
            stem,
            labels=labels,
            class_names=self.spec.class_names,
            most=columns**2,
            columns=columns,
        )
        if self.extractor is None or reference is None:
            return Sampled(grid, None)
        assert generated.statistics is not None
        return Sampled(
            grid,
            score_samples(generated.statistics, reference, self.extractor, request, self.data.fingerprint),
        )

    def _average(self) -> dict[str, Any]:
        """Return what the exported average is, as JSON values."""
        spec = read_json(self.run.model / SPEC)
        facts = {name: spec[name] for name in ("ema_length", "initial_share")}
        return {"kind": word_of(self.recipe.averages)} | facts

    def _noise_distance(self, reference: FeatureStatistics | None, count: int) -> float | None:
        if self.extractor is None or reference is None:
            return None
        return noise_distance(self.extractor, reference, self.data.shape, count)

    def _warn_of_bias(self, count: int) -> None:
        if self.extractor is None:
            return
        for n, what in ((count, "samples"), (self.data.count, "images of the reference")):
            if warning := bias_warning(n, self.extractor.dim, what):
                self.say(f"warning: {warning}")


def generate_here(model: Model, extractor: Extractor | None, request: Request) -> Generated:
    """Sample a request in this process."""
    images = list(sample_units(model, request))
    statistics = statistics_of_batches(extractor, images) if extractor else None
    return Generated(torch.cat(images), statistics)


def measure_here(model: Model, extractor: Extractor, requests: Sequence[Request]) -> list[FeatureStatistics]:
    """Sample requests in this process; return the statistics of the features of each."""
    return [statistics_of_batches(extractor, sample_units(model, request)) for request in requests]


def class_shares(extractor: Any, images: Tensor) -> dict[str, float] | None:
    """Return the share of samples that a classifier takes for each class, by the class's name or number.

    None if the extractor does not predict classes.
    """
    if not hasattr(extractor, "predict"):
        return None
    names: tuple[str, ...] = getattr(extractor, "class_names", ())
    counts = torch.bincount(extractor.predict(images).cpu(), minlength=len(names)).double()
    named = zip(names or map(str, range(len(counts))), counts.tolist(), strict=True)
    return {name: round(count / len(images), 4) for name, count in named}


def summary(run: RunDirectory) -> str:
    """Return the scores and the paths of a finished run as text for the terminal."""
    result = read_json(run.result_file)
    lines = [f"finished: {run.result_file}"]
    if length := result["average"]["ema_length"]:
        lines.append(f"  the model is the average of length {length:g}, after {result['model_step']} steps")
    for row in result["scores"]:
        share = row["value"] / result["clipped_noise"]
        lines.append(
            f"  {row['name']}, {row['key']['sampler']}: {row['value']:.4g}  "
            f"({share:.1%} of clipped Gaussian noise)"
        )
    if result["class_shares"]:
        name, share = min(result["class_shares"].items(), key=lambda item: item[1])
        lines.append(f"  share of the rarest class, {name}: {share:.1%}")
    lines += [f"  samples: {path}" for path in result["paths"]["samples"]]
    return "\n".join(lines)
