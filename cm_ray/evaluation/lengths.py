"""Scores of power-function averages of several lengths on common noise, from the snapshots of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cm_ray.drawing.model_labels import LabelledImages, scored_labels
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request
from cm_ray.errors import UserError
from cm_ray.evaluation.reference import ScoredAgainst
from cm_ray.evaluation.scorer import Scorer, needed_extractor, request_key
from cm_ray.metrics.estimate import infinitesimal_jackknife
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.frechet import FrechetGradient, FrechetReference, bias_warning
from cm_ray.metrics.score import ROW, Score
from cm_ray.networks.model import ModelSpec, save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.snapshots import MOST_ERROR, KeptAverages
from cm_ray.storage.files import read_json, remove, write_json

MOST_SAMPLES = 10_000
"""Samples for each length, unless another number is asked for."""
LENGTHS_SEED = 4
"""Offset of the seed by which a length is chosen: checkpoints and final scores have other noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredLength:
    """The score of the average of one length."""

    length: float
    """sigma_rel of the average."""
    step: int
    """Training step after which the average was taken."""
    fit_error: float
    """Error of its reconstruction, as a share of the profile's norm; 0 for a tracked length."""
    score: Score
    """Fréchet distance of its samples, with its standard error."""
    influence: tuple[float, ...] = field(repr=False)
    """Sum of the influences of each group of samples on the distance."""

    def difference(self, other: ScoredLength) -> tuple[float, float]:
        """Return score minus the score of `other`, and the standard error of this difference.

        Both have the same noise, so that the error is smaller than those of the scores.
        """
        apart = np.subtract(self.influence, other.influence)
        error = infinitesimal_jackknife(apart, self.score.key["n"])
        return self.score.value - other.score.value, error

    def to_row(self) -> dict[str, Any]:
        """Return the length and its score as JSON values."""
        return {
            "length": self.length,
            "step": self.step,
            "fit_error": self.fit_error,
            "score": self.score.to_row(),
            "influence": list(self.influence),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ScoredLength:
        """Return the length that `to_row` wrote. Raises ValueError when the row is not one of a length."""
        try:
            score, influence = Score.from_row(row["score"]), tuple(map(float, row["influence"]))
            numbers = {name: float(row[name]) for name in ("length", "fit_error")}
            return cls(**numbers, step=int(row["step"]), score=score, influence=influence)
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not the row of a length: {row}") from error


_ROW = {"length": float, "step": int, "fit_error": float, "score": ROW, "influence": [float]}
"""The shape of a row of averages.json."""


@dataclass(frozen=True, kw_only=True)
class LengthScoring:
    """The measurement that all lengths of a run share: samples, reference and extractor."""

    kept: KeptAverages
    spec: ModelSpec
    """The specification of the models that are sampled from."""
    scorer: Scorer
    """The scorer, which samples and extracts features."""
    data: ScoredAgainst
    """The images to compare with."""
    request: Request
    """All samples of a length; their noise and labels are the same for all lengths."""
    say: Callable[[str], None]

    def scores(self, lengths: Sequence[float]) -> Iterator[ScoredLength]:
        """Yield every length after it was scored and written to the file; what is there is not repeated.

        Raises UserError, before the first one, when the snapshots do not make one of the lengths.
        """
        for length in lengths:
            self.kept.check(length)
        if warning := bias_warning(self.request.count, self._extractor.dim):
            self.say(f"warning: {warning}")
        earlier = read_lengths(self.kept.run)
        against = FrechetReference.of(self.scorer.reference(self.data))
        for length in dict.fromkeys(lengths):
            found = next((each for each in earlier if self._is(each, length)), None)
            if found is None:
                found = self._scored(length, against)
                earlier = [*earlier, found]
                write_json(self.kept.run.averages_file, [each.to_row() for each in earlier])
            self.say(f"length {length:g}: {found.score.value:.4g} ± {found.score.error:.2g}")
            yield found

    def _is(self, found: ScoredLength, length: float) -> bool:
        """Return True if a length was scored in the same way, from the same snapshots."""
        wanted = (length, self.kept.step, self.kept.plan(length).error, _compared(self._key))
        return (found.length, found.step, found.fit_error, _compared(found.score.key)) == wanted

    @property
    def _extractor(self) -> Extractor:
        return needed_extractor(self.scorer.extractor)

    @property
    def _key(self) -> dict[str, Any]:
        return request_key(self._extractor, self.request, self.data.fingerprint)

    def _scored(self, length: float, against: FrechetReference) -> ScoredLength:
        folder = self.kept.run.scoring_work / f"{length:g}"
        save_model(folder, self.spec, self.kept.weights(length))
        groups = self.scorer.sampled(folder, self.request).groups
        remove(folder)
        gradient = FrechetGradient.at(sum(groups[1:], start=groups[0]), against)
        influence = gradient.of_groups(groups)
        error = infinitesimal_jackknife(influence, self.request.count)
        return ScoredLength(
            length=length,
            step=self.kept.step,
            fit_error=self.kept.plan(length).error,
            score=Score(value=gradient.value, key=self._key, error=error),
            influence=tuple(influence.tolist()),
        )


def length_request(
    recipe: Recipe,
    spec: ModelSpec,
    data: LabelledImages,
    *,
    samples: int = 0,
    sampler: str = "",
    labels: str = "",
    seed: int | None = None,
) -> Request:
    """Return the samples by which every length of a run is scored.

    data: the images to compare with. samples: by default those of the final scores, at most 10,000. sampler:
    by default the first that the run scores. labels: as of `scored_labels`, by default the run's. seed: by
    default a function of the run's. The precision is that of the training.
    """
    evaluation = recipe.evaluation
    return Request(
        count=samples or min(evaluation.samples or data.count, MOST_SAMPLES),
        seed=recipe.seed + LENGTHS_SEED if seed is None else seed,
        sampler=sampler_of(spec, sampler or evaluation.samplers[0]),
        labels=scored_labels(spec, data, labels or evaluation.labels),
        unit=recipe.sampled_at_once,
        precision=recipe.precision,
    )


def check_images(run: RunDirectory, spec: ModelSpec, data: ScoredAgainst, *, given: bool) -> None:
    """Raise UserError on images of another shape than the model's, or, unless given, not the run's own."""
    if data.shape != spec.shape:
        raise UserError(
            f"{run.root} makes images {spec.shape}, and those of {data.source} are {data.shape}, channels "
            "first: give others, or set the size."
        )
    if not given and data.fingerprint != run.lineage()["data.fingerprint"]:
        raise UserError(f"{run.root} was trained on other images than {data.source} has now: give the data.")


def read_lengths(run: RunDirectory) -> list[ScoredLength]:
    """Return all lengths of a run that were scored. Raises UserError when their file is damaged."""
    file = run.averages_file
    rows = read_json(file, [_ROW]) if file.is_file() else []
    try:
        return [ScoredLength.from_row(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); restore it or remove it.") from error


def scored_alike(run: RunDirectory, one: ScoredLength) -> list[ScoredLength]:
    """Return all lengths of a run that were scored in the same way as `one`, of the same step, ascending."""
    like = (one.step, _compared(one.score.key))
    found = [each for each in read_lengths(run) if (each.step, _compared(each.score.key)) == like]
    return sorted(found, key=lambda each: each.length)


def _compared(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key of a score without the version of cm_ray."""
    return {**key, "version": ""}


def best_length(scored: Sequence[ScoredLength]) -> ScoredLength:
    """Return the length with the lowest score; of equal ones, the first."""
    return min(scored, key=lambda each: each.score.value)


def reachable(kept: KeptAverages, lengths: Sequence[float]) -> tuple[float, ...]:
    """Return the lengths that the kept averages make, in order."""
    return tuple(length for length in lengths if kept.plan(length).error <= MOST_ERROR)
