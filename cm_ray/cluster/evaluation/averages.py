"""The length of a finished run's average, chosen by scores on a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import ScoringSetup, scoring_setup
from cm_ray.cluster.pool.scorer import PoolScorer
from cm_ray.cluster.pool.sizing import actors_for, batch_for
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.command_line.settings.averages import AverageLengths
from cm_ray.errors import UserError, setting
from cm_ray.evaluation.lengths import (
    LengthScoring,
    ScoredLength,
    best_length,
    check_images,
    length_request,
    reachable,
)
from cm_ray.evaluation.reference import Shards
from cm_ray.networks.formats.export import free_path
from cm_ray.networks.formats.reading import read_spec
from cm_ray.networks.model import ModelSpec, save_model
from cm_ray.recipes.measuring import MeasuringSettings
from cm_ray.recipes.recipe import Recipe
from cm_ray.reports.lengths_report import write_lengths
from cm_ray.runs.console import say
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.places import finished_run
from cm_ray.runs.snapshots import KeptAverages
from cm_ray.storage.files import remove


@dataclass(frozen=True)
class Choice:
    """The length that was chosen."""

    length: float
    scored: list[ScoredLength]
    """The lengths that were compared; empty when there was no choice."""
    files: list[Path]
    """Table, plot and exported model."""


def choose_average(settings: AverageLengths) -> Choice:
    """Score averages of several lengths on the same noise, and export the best if a folder is given.

    A single length is exported without a score, and so is the first tracked one without an extractor. Raises
    UserError on bad input, before anything is sampled.
    """
    run = finished_run(settings.run)
    out = free_path("model", Path(settings.export).expanduser()) if settings.export else None
    with run.locked():
        asked = _Asked.of(settings, run)
        only = asked.only
        if only is not None:
            scored, files = [], []
        else:
            setup = scoring_setup(_measuring(settings), asked.recipe)
            with connected():
                scored = asked.scored(setup)
            only = best_length(scored).length
            files = write_lengths(run, scored[0])
        if out is not None:
            spec = dataclasses.replace(asked.spec, ema_length=only)
            save_model(out, spec, asked.kept.weights(only))
            files.append(out)
    return Choice(only, scored, files)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The averages of a run that the settings ask for."""

    settings: AverageLengths
    run: RunDirectory
    recipe: Recipe
    spec: ModelSpec
    kept: KeptAverages
    lengths: Sequence[float]

    @classmethod
    def of(cls, settings: AverageLengths, run: RunDirectory) -> _Asked:
        """Raise UserError on a length or a step of which the run has not kept enough."""
        recipe = run.config()
        kept = KeptAverages.of(run, recipe, settings.step or run.result()["model_step"])
        for length in settings.numbers:
            kept.check(length)
        lengths = settings.numbers or reachable(kept, kept.averages.candidates)
        if not lengths:
            raise UserError(
                f"The snapshots in {run.root} make none of the run's candidates; give "
                f"{setting('lengths')} that were tracked, "
                f"{', '.join(f'{length:g}' for length in kept.averages.lengths)}."
            )
        spec = read_spec(run.model)
        return cls(settings=settings, run=run, recipe=recipe, spec=spec, kept=kept, lengths=lengths)

    @property
    def only(self) -> float | None:
        """The length to export when there is nothing to compare; None if there is a choice.

        Raises UserError when there is no extractor to choose by.
        """
        given = self.settings.numbers
        if self.settings.export and len(given) == 1:
            return given[0]
        if self.settings.extractor or self.recipe.evaluation.extractor != "none":
            return None
        if given or not self.settings.export:
            raise UserError(
                f"{self.run.root} has no extractor to score averages by; set {setting('extractor')}, or "
                "export a "
                f"single one of {setting('lengths')}."
            )
        length = self.kept.averages.lengths[0]
        say(
            f"{self.run.root} has no extractor to score averages by: the one of length {length:g}, the first "
            "that was tracked, is exported."
        )
        return length

    def scored(self, setup: ScoringSetup) -> list[ScoredLength]:
        """Return the scores of all lengths. Raises UserError on images that are not those of the run."""
        settings = self.settings
        shards, manifest = prepare_shards(setup.data)
        data = Shards(shards, manifest)
        check_images(self.run, self.spec, data, given=bool(settings.data or settings.size))
        request = length_request(
            self.recipe,
            self.spec,
            manifest,
            samples=settings.samples,
            sampler=settings.sampler,
            labels=setup.labels,
            seed=settings.seed,
        )
        actors = actors_for(settings.actors, self.run.scoring_work)
        say(f"{self.run.root}: averages of step {self.kept.step}, {request.count} samples each, {actors}")
        precision, work = request.precision, self.run.scoring_work
        unit = batch_for(settings.batch_size, precision, self.spec, actors, work)
        with SamplerPool(setup.opener, actors) as pool:
            scoring = LengthScoring(
                kept=self.kept,
                spec=self.spec,
                scorer=PoolScorer(pool, setup.extractor, self.run.scoring_work),
                data=data,
                request=dataclasses.replace(request, unit=unit),
                say=say,
            )
            found = list(scoring.scores(self.lengths))
        remove(self.run.scoring_work)
        return found


def _measuring(settings: AverageLengths) -> MeasuringSettings:
    names = [field.name for field in dataclasses.fields(MeasuringSettings)]
    shared = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    return MeasuringSettings(**shared)
