"""The search for time points on a connected cluster: it samples, pinpoints, confirms and reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cm_ray.cluster.actors import plan_actors
from cm_ray.cluster.gathered import Gathered
from cm_ray.cluster.generate import SamplerPool
from cm_ray.cluster.launch import node_resources
from cm_ray.cluster.point_plan import Plan
from cm_ray.cluster.point_scores import WANTED, Measurement, PointScores
from cm_ray.cluster.prepare import prepare_shards
from cm_ray.cluster.progress import say, shown
from cm_ray.cluster.references import Yardstick, reference_set
from cm_ray.cluster.remembered import Remembered
from cm_ray.errors import UserError
from cm_ray.files import remove, write_json
from cm_ray.metrics.frechet import FrechetReference, frechet_influence
from cm_ray.metrics.measured import Measured
from cm_ray.metrics.score import Score, measured_score, score_key
from cm_ray.networks.model import sampling_of
from cm_ray.run_directory import RunDirectory
from cm_ray.sampling import Sampling, parse
from cm_ray.search.adaptive import Pinpointed
from cm_ray.search.greedy import Points, Stage, points_by_count
from cm_ray.search.integers import method_named
from cm_ray.search.noisy import PointRequest, find_points
from cm_ray.search.openai_indices import write_ts
from cm_ray.training.pictures import save_grid
from cm_ray.training.sampling import Request
from cm_ray.training.time_points_report import Chosen, Evaluated, Placed, Report

_WORK = "work"


class Search:
    """One search on a connected cluster."""

    def __init__(self, plan: Plan, measure: Yardstick, folder: Path, run: RunDirectory) -> None:
        self.plan, self.measure, self.folder, self.run = plan, measure, folder, run
        self.shards, self.manifest = prepare_shards(measure.data)
        if self.manifest.shape != plan.spec.shape:
            raise UserError(
                f"The model makes images of {plan.spec.shape} and the data are of {self.manifest.shape}: "
                "give --size, or other --data."
            )
        self.actors = plan_actors(plan.settings.actors, node_resources())
        self.evaluated: list[Evaluated] = []
        self.placed: list[Placed] = []

    def conclude(self) -> None:
        """Search, measure what was found, and write result.json last."""
        settings = self.plan.settings
        say(
            f"{self.run.root}: up to {settings.steps} evaluations on a grid of {self.plan.grid}, "
            f"{settings.spend}, {self.measure.extractor.name}, {self.actors}"
        )
        with SamplerPool(self.measure.opener, self.actors) as pool:
            extractor = self.measure.extractor
            references = reference_set(pool, self.shards, self.manifest, extractor, ())
            remembered = Remembered(pool, pool.put(self.folder), extractor, WANTED, self.run.root / _WORK)
            scores = PointScores(remembered, references.frechet, self._request, self._measured)
            found = points_by_count(self._stages(scores))
            chosen = [
                self._chosen(remembered, references.frechet, points) for points in ((), *found.values())
            ]
            self._grids(pool, chosen)
        report = Report(
            model=settings.model,
            grid=self.plan.grid,
            placed=tuple(self.placed),
            evaluated=tuple(self.evaluated),
            chosen=tuple(chosen),
            note=self._note(),
        )
        report.write(self.run.root / "time_points")
        write_json(self.run.result_file, report.to_dict())
        remove(self.run.root / _WORK)

    def _stages(self, scores: PointScores) -> list[Stage[Pinpointed]]:
        settings, stages = self.plan.settings, []
        for stage in find_points(
            scores,
            self.plan.grid,
            settings.steps - 1,
            spending=settings.spend,
            method=method_named(settings.method, actors=self.actors.count),
            effort=self.plan.effort,
            sweeps=settings.sweeps,
            tolerance=settings.tolerance,
            zone=settings.zone,
        ):
            self._placed(stage)
            stages.append(stage)
        return stages

    def _placed(self, stage: Stage[Pinpointed]) -> None:
        found, gap = stage.found, stage.gap
        placed = Placed(
            stage=len(self.placed) + 1,
            evaluations=len(stage.points) + 1,
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
            f"{placed.evaluations} evaluations: {', '.join(f'{tau:.4g}' for tau in placed.taus)}; "
            f"{found.spent:,} samples{share}"
        )

    def _request(self, request: PointRequest) -> Request:
        return self._samples(self.plan.sampling(request.points), request.first, request.count)

    def _samples(self, sampling: Sampling, first: int, count: int, seeds: int = 0) -> Request:
        settings = self.plan.settings
        seed = settings.seed + seeds
        return Request(count=count, first=first, seed=seed, sampling=sampling, unit=settings.batch_size)

    def _measured(self, measurement: Measurement) -> None:
        kept = measurement.of
        self.evaluated.append(
            Evaluated(
                stage=len(self.placed) + 1,
                points=kept.points,
                taus=self.plan.taus(kept.points),
                first=kept.first,
                samples=kept.count,
                value=measurement.value,
                error=measurement.error,
            )
        )

    def _chosen(self, remembered: Remembered, reference: FrechetReference, points: Points) -> Chosen:
        """Measure found points, and a Karras grid's, on the next seed's noise."""
        count = len(points) + 1
        sampling, karras = self.plan.sampling(points), parse(f"multistep:{count}", self.plan.spec.diffusion)
        requests = [self._samples(one, 0, self.plan.effort.budget, seeds=1) for one in (sampling, karras)]
        values: list[Score] = []
        with shown("image") as progress:
            for _ in remembered.generate_all(requests[: 1 + (karras != sampling)], progress):
                pass
        for request in requests:
            gathered = Gathered.load(remembered.file(request), WANTED)
            assert gathered is not None
            assert gathered.features is not None
            value, influence = frechet_influence(gathered.features, reference)
            error = float(influence.std(ddof=1) / np.sqrt(len(influence)))
            values.append(self._score(request, Measured(value=value, error=error)))
        say(f"{values[0].metric}: {values[0].value:.4g} ± {values[0].error:.2g}")
        return Chosen(
            evaluations=count,
            taus=sampling.taus,
            ts=write_ts(points, self.plan.grid),
            score=values[0].to_row(),
            karras_taus=karras.taus,
            karras_value=values[1].value,
        )

    def _score(self, request: Request, measured: Measured) -> Score:
        key = score_key(
            self.measure.extractor,
            n=request.count,
            seed=request.seed,
            reference=self.manifest.fingerprint,
            sampler=request.sampling.text,
            evaluations=request.sampling.evaluations,
        )
        return measured_score("FD", measured, key)

    def _grids(self, pool: SamplerPool, chosen: Sequence[Chosen]) -> None:
        model = pool.put(self.folder)
        for one in chosen:
            sampling = sampling_of(self.plan.spec, taus=one.taus) if one.taus else self.plan.sampling(())
            images = pool.generate(model, self._samples(sampling, 0, 100, 1), frozenset(["images"])).images
            assert images is not None
            save_grid(images, self.run.samples / f"{one.evaluations}-evaluations.png", columns=10)

    def _note(self) -> str:
        plan, settings = self.plan, self.plan.settings
        how = settings.spend if settings.spend == "smooth" else f"{settings.spend} by {settings.method}"
        return (
            f"Searched {how}, from {plan.effort.first:,} samples to {plan.effort.budget:,} for a candidate, "
            f"seed {settings.seed}, against {self.manifest.count:,} images of {self.manifest.source}; scored "
            f"on {plan.effort.budget:,} samples of seed {settings.seed + 1}."
        )
