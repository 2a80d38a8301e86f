"""The search for the time points of multistep sampling, driven on Ray.  Song et al. 2023, section 6."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from cm_ray.cluster.actors import plan_actors
from cm_ray.cluster.gathered import Gathered
from cm_ray.cluster.generate import SamplerPool
from cm_ray.cluster.launch import connected, node_resources
from cm_ray.cluster.point_scores import WANTED, Measurement, PointScores
from cm_ray.cluster.prepare import prepare_shards
from cm_ray.cluster.progress import say, shown
from cm_ray.cluster.references import Yardstick, reference_set, run_of, yardstick
from cm_ray.cluster.remembered import Remembered
from cm_ray.config import MeasuringConfig, TrainConfig
from cm_ray.errors import UserError
from cm_ray.files import folder_written_aside, read_json, remove, write_json
from cm_ray.metrics.frechet import FrechetReference, bias_warning, frechet_influence
from cm_ray.metrics.measured import Measured
from cm_ray.metrics.score import Score, measured_score, score_key
from cm_ray.networks.model import (
    SPEC,
    WEIGHTS,
    ModelSpec,
    network_digest,
    read_model,
    sampling_of,
    spec_to_dict,
)
from cm_ray.run_directory import RunDirectory, default_run_dir
from cm_ray.sampling import Sampling, parse
from cm_ray.search.adaptive import Pinpointed
from cm_ray.search.effort import Effort
from cm_ray.search.greedy import Points, Stage, points_by_count
from cm_ray.search.integers import method_named
from cm_ray.search.noisy import PointRequest, find_points
from cm_ray.search.openai_indices import taus, write_ts
from cm_ray.tracking import Group
from cm_ray.tracking.locate import locate_model
from cm_ray.tracking.registry import model_digest
from cm_ray.tracking.progress import Told
from cm_ray.tracking.time_points import publish_time_points
from cm_ray.training.pictures import save_grid
from cm_ray.training.sampling import Request
from cm_ray.training.time_points_report import Chosen, Evaluated, Placed, Report

EXPERIMENT = "cm_ray"
_MOST_GRID, _GRID = 201, 40
_WORK = "work"


@dataclass(frozen=True, kw_only=True)
class TimePointSearch(MeasuringConfig):
    """What to search, and how."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A consistency model: run directory, model folder, or models:/NAME@ALIAS."""
    steps: int = 2
    """Search the time points for 2, 3 … this many network evaluations."""
    grid: int = 0
    """Boundaries N of the Karras grid whose inner ones are the candidates (paper: 18, 40, 151, 201); 0: as
    many as the model's run trained on at last, at most 201, or 40."""
    spend: Literal["smooth", "raced", "fixed"] = "smooth"
    """How samples are spent. smooth: few, where a smooth curve through all scores is unsure of its minimum;
    raced: each decision of --method takes more only while it is open; fixed: --budget for every candidate."""
    method: Literal["ternary", "fibonacci", "sections", "exhaustive"] = "ternary"
    """Of raced and fixed: ternary is the paper's; fibonacci takes the fewest evaluations, sections as many a
    round as there are actors, exhaustive all of them."""
    budget: int = 10_000
    """Most samples for a candidate; the confirmation takes others, up to as many again."""
    first: int = 0
    """Samples to begin with; 0: a sixteenth of the budget, or more than the extractor has features."""
    sweeps: int = 1
    """How often, after each new point, all points are refined."""
    tolerance: float = 0.005
    """Expected regret, in the score's unit, at which smooth ends."""
    zone: float = 0.04
    """Difference, in the score's unit, that raced does not tell apart."""
    seed: int = 2
    """Seed of the noise and the labels of the search; the found points are scored on the next one's."""
    update: bool = True
    """Write the points into the model, and register it as a new version if it was registered."""


def find_time_points(settings: TimePointSearch) -> RunDirectory:
    """Search, score what was found, write it into the model and return the directory with everything.

    In it: result.json; time_points.md, .csv (every evaluation) and .png; sample grids. The same call goes on
    after a kill and repeats no finished evaluation. Raises UserError on bad input.
    """
    folder = locate_model(settings.model, settings.tracking_uri)
    run_config = run_of(folder)
    measure = yardstick(settings, run_config)
    name = Path(settings.model.replace("models:/", "").rstrip("/")).stem
    root = Path(settings.run_dir).absolute() if settings.run_dir else default_run_dir(f"time_points-{name}")
    run = RunDirectory(root)
    plan = _Plan.of(settings, folder, run_config, measure)
    with run.locked():
        before = _claim(run, plan, folder, measure)
        group = Group(run.root, name=run.root.name, uri=settings.tracking_uri, experiment=EXPERIMENT)
        try:
            if not run.result_file.is_file():
                with connected():
                    _Search(plan, measure, folder, run).conclude()
            _tell(group, plan, run)
            if settings.update:
                _update(settings, folder, run, before, group.run_id)
        except BaseException:
            group.finish("FAILED")
            raise
        group.finish("FINISHED")
    return run


@dataclass(frozen=True, slots=True)
class _Plan:
    """The settings with all defaults filled in."""

    settings: TimePointSearch
    spec: ModelSpec
    grid: int
    effort: Effort

    @classmethod
    def of(
        cls, settings: TimePointSearch, folder: Path, run: TrainConfig | None, measure: Yardstick
    ) -> _Plan:
        """Fill in the defaults. Raises UserError on settings that do not fit the model or each other."""
        spec, _ = read_model(folder)
        if spec.diffusion.boundary == "none":
            raise UserError(f"{settings.model} is a diffusion model: time points are a consistency model's.")
        if settings.steps < 2:
            raise UserError(f"--steps {settings.steps} has no time points to search: give 2 or more.")
        dim = measure.extractor.dim
        first = settings.first or min(settings.budget, max(settings.budget // 16, dim + dim // 4))
        if warning := bias_warning(first, dim):
            say(f"warning: a search from {first} samples on: {warning}")
        known = run.schedule.s1 + 1 if run else _GRID
        effort = Effort(first=first, budget=settings.budget)
        return cls(settings, spec, settings.grid or min(_MOST_GRID, known), effort)

    def sampling(self, points: Points) -> Sampling:
        """Return the sampling with points of the grid."""
        return (
            sampling_of(self.spec, taus=self.taus(points)) if points else sampling_of(self.spec, "one-step")
        )

    def taus(self, points: Points) -> tuple[float, ...]:
        """Return the times of points, descending."""
        diffusion = self.spec.diffusion
        return taus(points, self.grid, t_min=diffusion.t_min, t_max=diffusion.t_max, rho=diffusion.rho)

    def to_dict(self) -> dict[str, Any]:
        """Return, as JSON values, what decides the outcome."""
        kept = dataclasses.asdict(self.settings)
        for name in ("actors", "run_dir", "tracking_uri", "update", "model", "weights"):
            del kept[name]
        return kept | {"grid": self.grid, "first": self.effort.first}


class _Search:
    """One search on a connected cluster."""

    def __init__(self, plan: _Plan, measure: Yardstick, folder: Path, run: RunDirectory) -> None:
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


def _claim(run: RunDirectory, plan: _Plan, folder: Path, measure: Yardstick) -> str:
    """Give the directory to this search; return the digest that the model had when it began.

    Raises UserError, naming what differs, when it holds another search.
    """
    file = run.root / "search.json"
    extractor = measure.extractor
    wanted = plan.to_dict() | {
        "network": network_digest(folder),
        "extractor": [extractor.name, extractor.weights_sha256, extractor.preprocess],
        "data": [measure.data.path, measure.data.size],
    }
    if not file.is_file():
        write_json(file, wanted | {"model": model_digest(folder)})
    found = read_json(file)
    before: str = found.pop("model")
    wanted = json.loads(json.dumps(wanted))
    if others := [name for name in wanted if found.get(name) != wanted[name]]:
        raise UserError(
            f"{run.root} holds a search with other settings ({', '.join(others)}); repeat its settings to go "
            "on with it, or choose another --run-dir."
        )
    return before


def _tell(group: Group, plan: _Plan, run: RunDirectory) -> None:
    """Log all of it to MLflow."""
    result = read_json(run.result_file)
    metrics = {f"samples/{name}": value for name, value in result["samples"].items()}
    for chosen in result["chosen"]:
        metrics[f"{chosen['score']['name']}/{chosen['evaluations']}-evaluations"] = chosen["score"]["value"]
    files = [run.result_file, *sorted(run.root.glob("time_points.*")), *sorted(run.samples.glob("*.png"))]
    group.log(params={"model": plan.settings.model} | plan.to_dict(), metrics=metrics, files=files)


def _update(settings: TimePointSearch, folder: Path, run: RunDirectory, before: str, mlflow_run: str) -> None:
    """Write the found points into the model, and register it again where it was registered."""
    chosen = read_json(run.result_file)["chosen"]
    spec, _ = read_model(folder)
    points = {len(taus): taus for taus in spec.time_points}
    points |= {len(one["taus"]): tuple(one["taus"]) for one in chosen if one["taus"]}
    spec = dataclasses.replace(spec, time_points=tuple(points[count] for count in sorted(points)))
    tags = {"time_points.run": mlflow_run}
    if settings.model.startswith("models:"):
        with folder_written_aside(run.model) as aside:
            shutil.copy(folder / WEIGHTS, aside / WEIGHTS)
            write_json(aside / SPEC, spec_to_dict(spec))
        registered = publish_time_points(
            run.model, settings.model, tracking_uri=settings.tracking_uri, tags=tags
        )
        say(f"{registered.uri}: {registered.reason}")
        return
    write_json(folder / SPEC, spec_to_dict(spec))
    say(f"{folder / SPEC} has the time points: python jobs/sample.py {settings.model} --steps 2")
    if (told := registered_as(folder)) is not None:
        registered = publish_time_points(
            folder,
            told.version["name"],
            before=before,
            run_id=told.run_id,
            tracking_uri=told.uri,
            tags=tags,
        )
        say(f"{registered.uri}: {registered.reason}")


def registered_as(model: Path) -> Told | None:
    """Return what MLflow was told of the run that a model's folder lies in; None if it was not registered."""
    file = RunDirectory(model.parent).tracking_file
    told = Told(**read_json(file)) if file.is_file() else None
    return told if told and told.version else None
