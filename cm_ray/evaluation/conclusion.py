"""The end of a training run: exports the best model, samples from it, scores it and writes result.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cm_ray.core.averages import PowerEMA
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import save_samples
from cm_ray.drawing.requests import Request
from cm_ray.evaluation.from_settings import evaluation_labels
from cm_ray.evaluation.lengths import LengthScoring, ScoredLength, length_request, reachable
from cm_ray.evaluation.reference import ScoredAgainst
from cm_ray.evaluation.scorer import Scorer, frechet_score, request_key, sample_count
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.frechet import bias_warning, frechet_distance
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.networks.model import SPEC, ModelSpec, save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.console import command
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.snapshots import KeptAverages
from cm_ray.sampling.text import file_name, text_of
from cm_ray.settings.choices import word_of
from cm_ray.storage.files import read_json, remove, write_json

FINAL_SEED = 1
"""Offset of the seed of the final scores: the best checkpoint is chosen on other noise."""
_NOT_SCORED: dict[str, Any] = {"scores": [], "class_shares": None, "clipped_noise": None}
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The end of a run whose training is finished."""

    recipe: Recipe
    run: RunDirectory
    spec: ModelSpec
    data: ScoredAgainst
    """The training data, which is the reference of the scores."""
    scorer: Scorer
    """The scorer, which samples and extracts features; without an extractor nothing is scored."""
    say: Say

    def best_step(self) -> int:
        """Return the step of the best checkpoint; of the last one without scores."""
        store = self._store()
        step = store.best_step() or store.steps()[-1]
        self.run.fetch(store.state_file(step))
        return step

    def choose_length(self, step: int) -> list[ScoredLength]:
        """Score the candidate lengths of power-function averages; return them, or nothing to choose from.

        Lengths that the snapshots do not make are left out. Without an extractor it says which average is
        exported instead.
        """
        averages = self.recipe.averages
        if not isinstance(averages, PowerEMA):
            return []
        if self.scorer.extractor is None:
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
            scorer=self.scorer,
            data=self.data,
            request=length_request(self.recipe, self.spec, self.data, samples=averages.samples),
            say=self.say,
        )
        return list(scoring.scores(candidates))

    def export(self, step: int, length: float = 0.0) -> None:
        """Save the average that is sampled from as the run's model, taken after `step` steps.

        length: of a power-function average, its sigma_rel; 0: the first one that was tracked.
        """
        facts = self.recipe.average_facts(step)
        if length := length or facts["ema_length"]:
            weights = KeptAverages.of(self.run, self.recipe, step).weights(length)
        else:
            weights = self._store().load(step).group("ema0")
        spec = replace(self.spec, **facts | {"ema_length": length})
        save_model(self.run.model, spec, weights)
        if warning := initial_weights_warning(spec, f"{self.run.root}"):
            self.say(f"warning: {warning}")

    def score(self, model_step: int) -> None:
        """Sample and score the exported model with every sampler of the recipe; write result.json last."""
        started = time.perf_counter()
        requests = [self._request(text) for text in self.recipe.evaluation.samplers]
        grids = [self._pictures(request) for request in requests]
        scored = self._scores(self.scorer.extractor, requests) if self.scorer.extractor else _NOT_SCORED
        rows = [row for row in self.run.read_metrics() if "seconds" in row]
        result = {
            "name": self.recipe.name,
            "steps": self.recipe.steps,
            "model_step": model_step,
            "average": self._average(),
            **scored,
            "timings": {
                "training_s": rows[-1]["seconds"] if rows else None,
                "images_per_s": rows[-1]["images_per_s"] if rows else None,
                "sampling_and_scoring_s": round(time.perf_counter() - started, 3),
            },
            "paths": {
                "model": str(self.run.model.relative_to(self.run.root)),
                "samples": [str(grid.relative_to(self.run.root)) for grid in grids],
            },
        }
        remove(self.run.scoring_work)
        write_json(self.run.result_file, result)

    def _store(self) -> CheckpointStore:
        return CheckpointStore(self.run.checkpoints, self.recipe.checkpoint.keep)

    def _request(self, text: str) -> Request:
        evaluation = self.recipe.evaluation
        scored = self.scorer.extractor is not None
        return Request(
            count=sample_count(evaluation.samples, self.data.count) if scored else evaluation.grid**2,
            seed=self.recipe.seed + FINAL_SEED,
            sampler=sampler_of(self.spec, text),
            labels=evaluation_labels(evaluation, self.spec, self.data),
            unit=self.recipe.sampled_at_once,
            precision=self.recipe.precision,
        )

    def _pictures(self, request: Request) -> Path:
        """Write the first samples of a request as a grid and as arrays; return the grid."""
        columns = self.recipe.evaluation.grid
        shown = replace(request, count=min(request.count, columns**2))
        grid, _ = save_samples(
            self.scorer.pictures(self.run.model, shown),
            self.run.samples / f"final-{file_name(request.sampler)}",
            labels=shown.drawn_labels(),
            class_names=self.spec.class_names,
            most=columns**2,
            columns=columns,
        )
        return grid

    def _scores(self, extractor: Extractor, requests: Sequence[Request]) -> dict[str, Any]:
        """Return what result.json says of the scores of all requests."""
        self._warn_of_bias(extractor, requests[0].count)
        reference = self.scorer.reference(self.data)
        noise = self.scorer.noise(self.data.shape, requests[0].count)
        scores, shares = [], None
        for number, request in enumerate(requests):
            self.say(f"{text_of(request.sampler)}, {request.count:,} samples:")
            sampled = self.scorer.sampled(self.run.model, request)
            key = request_key(extractor, request, self.data.fingerprint)
            scores.append(frechet_score(sampled.groups, reference, key).to_row())
            if number == 0:
                shares = class_shares(extractor, sampled.classes)
        return {
            "scores": scores,
            "class_shares": shares,
            "clipped_noise": frechet_distance(noise, reference),
        }

    def _average(self) -> dict[str, Any]:
        """Return what the exported average is, as JSON values."""
        spec = read_json(self.run.model / SPEC)
        facts = {name: spec[name] for name in ("ema_length", "initial_share")}
        return {"kind": word_of(self.recipe.averages)} | facts

    def _warn_of_bias(self, extractor: Extractor, count: int) -> None:
        for n, what in ((count, "samples"), (self.data.count, "images of the reference")):
            if warning := bias_warning(n, extractor.dim, what):
                self.say(f"warning: {warning}")


def class_shares(extractor: Any, counts: Tensor | None) -> dict[str, float] | None:
    """Return the share of samples of each class, by the class's name or number; None without counts (k,)."""
    if counts is None:
        return None
    names: tuple[str, ...] = getattr(extractor, "class_names", ())
    named = zip(names or map(str, range(len(counts))), counts.tolist(), strict=True)
    return {name: round(count / int(counts.sum()), 4) for name, count in named}


def summary(run: RunDirectory) -> str:
    """Return the scores and the paths of a finished run as text for the terminal."""
    result = run.result()
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
    lines += [f"  samples: {run.root / path}" for path in result["paths"]["samples"]]
    return "\n".join(lines)
