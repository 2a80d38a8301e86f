"""A search for time points on a connected cluster: the search, the final scores and the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cm_ray.cluster.pool.cache import ResultCache
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import COMPARE_CHANNELS, ScoringSetup, reference_set, scored_shape
from cm_ray.cluster.pool.result import SampleResult
from cm_ray.cluster.pool.sizing import actors_for, batch_for
from cm_ray.cluster.time_points.point_plan import SearchPlan, read_search
from cm_ray.cluster.time_points.point_scores import OUTPUTS, Measurement, PointScores
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.data.interface.agreement import check_comparable
from cm_ray.drawing.model_labels import scored_labels
from cm_ray.drawing.pictures import save_grid
from cm_ray.drawing.requests import Request
from cm_ray.errors import setting
from cm_ray.metrics.estimate import Estimate, infinitesimal_jackknife
from cm_ray.metrics.frechet import FrechetReference, frechet_influence
from cm_ray.metrics.score import Score, score_from_estimate, score_key
from cm_ray.metrics.statistics import Array
from cm_ray.reports.time_points_report import (
    ChosenPoints,
    ScoredCandidate,
    ScoreDifference,
    StageReport,
    TimePointsReport,
)
from cm_ray.runs.console import say, shown
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.multistep import sampler_for, sampler_with
from cm_ray.sampling.samplers import OneStep, PointSampler, Sampler
from cm_ray.sampling.text import text_of
from cm_ray.storage.files import remove, write_json
from cm_ray.time_points.greedy import Points, Stage, points_by_count
from cm_ray.time_points.integer_search import method_named
from cm_ray.time_points.noisy_search import PointSampleRange, find_points
from cm_ray.time_points.openai_indices import write_ts
from cm_ray.time_points.racing import PointResult

_WORK = "search-work"


@dataclass(frozen=True, slots=True, eq=False)
class _FinalScore:
    """A score on noise that the search has not used."""

    taus: tuple[float, ...]
    """The time points that were scored, descending."""
    score: Score
    influence: Array
    """Influence of each sample on the score (n,), paired between scores by the index of the sample."""

    def over(self, other: _FinalScore) -> ScoreDifference:
        """Return this score minus another one, with the standard error of the paired difference."""
        error = infinitesimal_jackknife(self.influence - other.influence)
        return ScoreDifference(mean=self.score.value - other.score.value, error=error)


class Search:
    """A search for time points on a connected cluster."""

    def __init__(self, plan: SearchPlan, setup: ScoringSetup, folder: Path, run: RunDirectory) -> None:
        self.plan, self.setup, self.folder, self.run = plan, setup, folder, run
        self.shards, self.manifest = prepare_shards(setup.data)
        check_comparable(
            f"The images of {plan.settings.model}",
            scored_shape(plan.spec, plan.settings),
            f"those of {self.manifest.source}",
            self.manifest.shape,
            size=f"set {setting('size')}, or give other {setting('data')}",
            channels=COMPARE_CHANNELS,
        )
        self.labels = scored_labels(plan.spec, self.manifest, setup.labels, say)
        self.evaluated: list[ScoredCandidate] = []
        self.placed: list[StageReport] = []

    def conclude(self) -> None:
        """Search for the points, measure their final scores and write the report, result.json last."""
        work = self.run.root / _WORK
        settings, actors = self.plan.settings, actors_for(self.plan.settings.actors, work)
        self.probes = self._probes(actors.count)
        self.unit = batch_for(settings.batch_size, settings.precision, self.plan.spec, actors, work)
        say(
            f"{self.run.root}: up to {settings.nfe} evaluations on a grid of {self.plan.grid}, "
            f"{settings.spend}, {self.setup.extractor.name}, {actors}"
        )
        with SamplerPool(self.setup.opener, actors) as pool:
            extractor = self.setup.extractor
            references = reference_set(pool, self.shards, self.manifest, extractor, ())
            cache = ResultCache(pool, pool.put(self.folder), extractor, OUTPUTS, work)
            scores = PointScores(cache, references.frechet, self._request, self._record_score)
            found = points_by_count(self._stages(scores)).values()
            chosen = list(self._chosen(cache, references.frechet, found))
            self._grids(pool, chosen)
        report = TimePointsReport(
            model=settings.model,
            grid=self.plan.grid,
            placed=tuple(self.placed),
            evaluated=tuple(self.evaluated),
            chosen=tuple(chosen),
            note=self._note(),
        )
        report.write(self.run.root / "time_points")
        write_json(self.run.result_file, report.to_dict())
        remove(work)

    def _probes(self, actors: int) -> int:
        """Return the number of candidates that are probed at once, as it was at the start of the search.

        Some methods choose their candidates by it, so a resumed search with other actors must keep it.
        """
        found = read_search(self.run)
        if "at_once" not in found:
            found["at_once"] = self.plan.settings.probes or actors
            write_json(self.run.search_file, found)
        probes: int = found["at_once"]
        return probes

    def _stages(self, scores: PointScores) -> list[Stage[PointResult]]:
        settings, stages = self.plan.settings, []
        for stage in find_points(
            scores,
            self.plan.grid,
            settings.nfe - 1,
            strategy=settings.spend,
            method=method_named(settings.method, actors=self.probes),
            budget=self.plan.budget,
            passes=settings.passes,
            tolerance=settings.tolerance,
            zone=settings.zone,
        ):
            self._record_stage(stage)
            stages.append(stage)
        return stages

    def _record_stage(self, stage: Stage[PointResult]) -> None:
        found, gap = stage.found, stage.gap
        placed = StageReport(
            stage=len(self.placed) + 1,
            nfe=len(stage.points) + 1,
            left=gap.left,
            right=gap.right,
            best=found.best,
            tau=self.plan.taus((found.best,))[0],
            taus=self.plan.taus(stage.points),
            refined=gap.incumbent is not None,
            spent=found.spent,
            fixed=found.fixed,
            rounds=found.rounds,
        )
        self.placed.append(placed)
        share = f", {found.spent / found.fixed:.1%} of fixed-size ternary search's" if found.fixed else ""
        say(
            f"{placed.nfe} evaluations: {', '.join(f'{tau:.4g}' for tau in placed.taus)}; "
            f"{found.spent:,} samples{share}"
        )

    def _request(self, request: PointSampleRange) -> Request:
        return self._samples(self.plan.sampler(request.points), request.first, request.count)

    def _samples(self, sampler: Sampler, first: int, count: int, seeds: int = 0) -> Request:
        settings = self.plan.settings
        seed = settings.seed + seeds
        return Request(
            count=count,
            first=first,
            seed=seed,
            sampler=sampler,
            labels=self.labels,
            unit=self.unit,
            precision=settings.precision,
            channels=settings.channels,
        )

    def _record_score(self, measurement: Measurement) -> None:
        kept = measurement.of
        self.evaluated.append(
            ScoredCandidate(
                stage=len(self.placed) + 1,
                points=kept.points,
                taus=self.plan.taus(kept.points),
                first=kept.first,
                samples=kept.count,
                value=measurement.value,
                error=measurement.error,
            )
        )

    def _chosen(
        self, cache: ResultCache, reference: FrechetReference, found: Iterable[Points]
    ) -> Iterator[ChosenPoints]:
        """Yield the points for 1, 2, … evaluations with final scores, and the default ones.

        The final scores use the noise of the next seed.
        """
        best: _FinalScore | None = None
        for points in ((), *found):
            default = sampler_for(len(points) + 1, self.plan.spec.diffusion)
            own, rival = self._final_scores(cache, reference, [self.plan.sampler(points), default])
            kept = rival if rival.score.value < own.score.value else own
            say(f"{own.score.metric}: {own.score.value:.4g} ± {own.score.error:.2g}")
            chosen = ChosenPoints(
                nfe=len(points) + 1,
                taus=own.taus,
                ts=write_ts(points, self.plan.grid),
                score=own.score.to_row(),
                default_taus=rival.taus,
                default_value=rival.score.value,
                kept=kept.taus,
                over_default=own.over(rival),
                over_fewer=kept.over(best) if best else None,
            )
            best = kept if best is None or kept.score.value < best.score.value else best
            for sentence in chosen.doubts:
                say(sentence)
            yield chosen

    def _final_scores(
        self, cache: ResultCache, reference: FrechetReference, samplers: Sequence[OneStep | PointSampler]
    ) -> list[_FinalScore]:
        """Return the scores of samplers on the noise of the next seed; all are sampled together."""
        requests = [self._samples(one, 0, self.plan.budget.full, seeds=1) for one in samplers]
        with shown("image") as progress:
            for _ in cache.generate_all(list(dict.fromkeys(requests)), progress):
                pass  # the results are on disk
        scores = []
        for sampler, request in zip(samplers, requests, strict=True):
            result = SampleResult.load(cache.file(request), OUTPUTS)
            assert result is not None
            assert result.features is not None
            value, influence = frechet_influence(result.features, reference)
            measured = Estimate(value=value, error=infinitesimal_jackknife(influence))
            scores.append(_FinalScore(sampler.taus, self._score(request, measured), influence))
        return scores

    def _score(self, request: Request, measured: Estimate) -> Score:
        key = score_key(
            self.setup.extractor,
            n=request.count,
            seed=request.seed,
            reference=self.manifest.fingerprint,
            labels=request.labels_text,
            sampler=text_of(request.sampler),
            nfe=request.sampler.nfe,
            precision=request.precision,
        )
        return score_from_estimate("FD", measured, key)

    def _grids(self, pool: SamplerPool, chosen: Sequence[ChosenPoints]) -> None:
        model = pool.put(self.folder)
        for one in chosen:
            sampler = sampler_with(one.taus, self.plan.spec.diffusion)
            request = self._samples(sampler, 0, 100, 1)
            images = pool.generate(model, request, frozenset(["images"])).images
            assert images is not None
            save_grid(
                images,
                self.run.samples / f"{one.nfe}-evaluations.png",
                columns=10,
                classes=request.drawn_classes(self.plan.spec),
            )

    def _note(self) -> str:
        plan, settings = self.plan, self.plan.settings
        strategy = settings.spend if settings.spend == "smooth" else f"{settings.spend} by {settings.method}"
        if settings.spend != "smooth" and settings.method in ("ternary", "sections"):
            strategy += f", {self.probes} candidates at once"
        return (
            f"Search: {strategy}, {plan.budget.first:,} to {plan.budget.full:,} samples for a candidate, "
            f"seed {settings.seed}, against {self.manifest.count:,} images of {self.manifest.source}. Final "
            f"scores: {plan.budget.full:,} samples of seed {settings.seed + 1}."
        )
