"""Comparison of methods on one data set: table 1 and figure 4 of Song et al. 2023."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.scorer import PoolScorer
from cm_ray.cluster.pool.sizing import actors_like
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.runtime.plan import WorkerPlan
from cm_ray.cluster.training.fit import plan_training
from cm_ray.cluster.training.prepare import PreparedData, prepare_shards
from cm_ray.cluster.training.run import train
from cm_ray.command_line.settings.paper_table import DEFAULT, Method
from cm_ray.data.shards.manifest import Manifest
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request
from cm_ray.errors import SettingError, require
from cm_ray.evaluation.conclusion import FINAL_SEED
from cm_ray.evaluation.evaluations import mean_evaluations
from cm_ray.evaluation.from_settings import evaluation_labels, extractor_opener
from cm_ray.evaluation.reference import Shards
from cm_ray.evaluation.scorer import frechet_score, request_key, sample_count
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.metrics.score import ROW, Score
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes import named
from cm_ray.recipes.comparison import COMPARED, Line, compared_recipe, lines_of, with_starts
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import EXPERIMENT
from cm_ray.reports.comparison import Cell, write_comparison
from cm_ray.runs.console import say
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.resources import Resources
from cm_ray.settings.tree import flatten, override, sketch, why_unknown
from cm_ray.storage.files import read_json, remove, write_json
from cm_ray.storage.shapes import ANYTHING
from cm_ray.tracking import RunGroup
from cm_ray.tracking.registry import model_digest

_CELL = {
    "of": {str: ANYTHING},
    "cell": {
        "method": str,
        "seed": int,
        "score": ROW,
        "noise_distance": float,
        "evaluations": float,
        "seconds_per_1000": float,
        "training_s": (float, None),
        "steps": int,
        "bits_per_dim": (float, None),
    },
}
"""The shape of a file of a measured cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Settings of a table."""

    folder: Path
    """Folder of the table; every run has its run directory in it."""
    data: str
    """Name of the data set, as in the names of the recipes: METHOD_DATA."""
    changes: dict[str, Any]
    """New values of settings, by dotted path, for every recipe that has the setting."""
    methods: tuple[Method, ...] = DEFAULT
    """Methods of the table; those that they start from are included."""
    seeds: int = 1
    """Trainings of every method, with the recipe's seed and those after it."""
    tracking_uri: str = ""
    """URI of MLflow, as in `TrackingSettings`; empty for mlflow.db beside the folder."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the table that is to be measured, of one training."""

    line: Line
    recipe: Recipe

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(Path(self.recipe.run_dir))

    @property
    def model(self) -> Path:
        return self.run.rounds / self.line.round if self.line.round else self.run.model


def make_table(table: Table) -> list[Path]:
    """Train the models, score their samples and write the table; return its files.

    The same call resumes an interrupted one: runs continue from their last checkpoints, and scores of the
    same model with the same key are not measured again. Raises UserError as `train` does.
    """
    configs = recipes_of(table)  # invalid settings are refused before anything is written
    group = RunGroup(table.folder, name=table.folder.name, uri=table.tracking_uri, experiment=EXPERIMENT)
    with RunDirectory(table.folder).locked(), group.closed():
        return _make(table, configs, group)


def _make(table: Table, configs: Mapping[Training, Recipe], group: RunGroup) -> list[Path]:
    group.log(params={"data": table.data, "seeds": table.seeds, **table.changes})
    tracked = {
        "tracking.uri": group.uri,
        "tracking.experiment": EXPERIMENT,
        "tracking.parent_run": group.run_id,
    }
    with connected():
        first = next(iter(configs.values()))
        prepared = PreparedData(first.data, prepare_shards(first.data)[0])
        for number, (training, config) in enumerate(configs.items(), 1):
            say(f"[{number}/{len(configs)}] {training.method}, seed {config.seed}")
            train(override(config, tracked), prepared=prepared)
        cells, note = _scored(table, first, _entries(configs), prepared)
    stem = table.folder / "table"
    files = write_comparison(cells, stem, title=f"Consistency models on {table.data}", note=note)
    values = {f"{cell.method} {cell.sampler} seed {cell.seed}": cell.value for cell in cells}
    group.log(metrics=values, files=files)
    return files


@dataclass(frozen=True, slots=True)
class Training:
    """A training of a table."""

    method: str
    number: int
    """Its number among the trainings of the method, which is added to the recipe's seed."""


def recipes_of(table: Table) -> dict[Training, Recipe]:
    """Return the recipe of every training, in their order, with its run directory and what it starts from.

    Raises UserError when a method cannot be trained or scored.
    """
    require(table.seeds >= 1, "seeds", f"must be at least 1, not {table.seeds}")
    chosen = with_starts(table.methods)
    _check_changes(table, chosen)
    trainings = [Training(method, number) for number in range(table.seeds) for method in chosen]
    return {training: _config(table, training) for training in trainings}


def _config(table: Table, training: Training) -> Recipe:
    """Return the recipe of a training; with one seed, the folders are called by the methods alone."""

    def folder(method: str) -> str:
        name = f"{method}-{training.number}" if training.number else method
        return str(table.folder / name)

    start = COMPARED[training.method].starts_from
    recipe = compared_recipe(training.method, table.data, table.changes, folder(start) if start else "")
    own = {"run_dir": folder(training.method), "seed": recipe.seed + training.number}
    return override(recipe, own)


def _check_changes(table: Table, methods: Sequence[str]) -> None:
    """Raise SettingError on a change of a setting that no recipe has."""
    recipes = [sketch(named(f"{method}_{table.data}"), table.changes) for method in methods]
    known = {path for recipe in recipes for path in flatten(recipe)}
    for path in table.changes:
        if path not in known:
            problems = [why_unknown(recipe, path) for recipe in recipes]
            raise SettingError(path, next((each for each in problems if "did you" in each), problems[-1]))


def _entries(configs: Mapping[Training, Recipe]) -> Iterator[_Entry]:
    for training, recipe in configs.items():
        for line in lines_of(training.method, recipe):
            yield _Entry(line, recipe)


def _scored(
    table: Table, config: Recipe, entries: Iterator[_Entry], prepared: PreparedData
) -> tuple[list[Cell], str]:
    """Return the cells, and a note about how they were measured."""
    shards, manifest = prepare_shards(config.data, prepared)
    opener = extractor_opener(config.evaluation)
    assert opener is not None, "compared_recipe has refused a recipe without an extractor"
    extractor = opener("cpu")
    count = sample_count(config.evaluation.samples, manifest.count)
    workers = plan_training(config.cluster, Resources.load(Path(config.run_dir)))
    work = RunDirectory(table.folder).scoring_work
    with SamplerPool(opener, actors_like(workers)) as pool:
        scorer = PoolScorer(pool, extractor, work)
        reference = scorer.reference(Shards(shards, manifest))
        noise = frechet_distance(scorer.noise(manifest.shape, count), reference)

        def measured(entry: _Entry) -> Cell:
            request = _request(entry, count, manifest)
            sampled = scorer.sampled(entry.model, request)
            key = request_key(extractor, request, manifest.fingerprint)
            return Cell(
                method=entry.line.label,
                seed=entry.recipe.seed,
                score=frechet_score(sampled.groups, reference, key).to_row(),
                noise_distance=noise,
                evaluations=mean_evaluations(load_model(entry.model), request),
                seconds_per_1000=sampled.seconds_per_1000,
                training_s=entry.run.result()["timings"]["training_s"],
                steps=entry.recipe.steps,
            )

        key = {"samples": count, "batch_size": config.sampled_at_once, "actors": str(workers)}
        key |= {"reference": manifest.fingerprint, "extractor": extractor.weights_sha256}
        key |= {"labels": config.evaluation.labels}
        cells = [_cached(table, entry, measured, key) for entry in entries]
    remove(work)
    return cells, _note(workers, manifest, noise)


def _request(entry: _Entry, count: int, manifest: Manifest) -> Request:
    spec, config = load_model(entry.model).spec, entry.recipe
    return Request(
        count=count,
        seed=config.seed + FINAL_SEED,
        sampler=sampler_of(spec, entry.line.sampler),
        labels=evaluation_labels(config.evaluation, spec, manifest),
        unit=config.sampled_at_once,
        precision=config.precision,
    )


def _cached(table: Table, entry: _Entry, measure: Callable[[_Entry], Cell], key: dict[str, Any]) -> Cell:
    """Return the cell of an entry; it is measured once for the same model, sampler and key."""
    sampler = re.sub(r"[^\w.=-]", "-", entry.line.sampler)
    name = f"{entry.run.root.name}-{entry.model.name}-{sampler}.json"
    file = table.folder / "cells" / name
    key = {"model_sha256": model_digest(entry.model), **key}
    if file.is_file() and (cached := read_json(file, _CELL))["of"] == key:
        Score.from_file(cached["cell"]["score"], file)
        return Cell(**cached["cell"])
    cell = measure(entry)
    write_json(file, {"of": key, "cell": cell.to_row()})
    say(f"{cell.method}, {cell.sampler}: {cell.value:.4g}, {cell.seconds_per_1000:.3g} s per 1,000 images")
    return cell


def _note(workers: WorkerPlan, manifest: Manifest, noise: float) -> str:
    device = "a GPU" if workers.use_gpu else "one CPU core"
    starts = ", ".join(
        f"{compared.label} from {COMPARED[compared.starts_from].label}"
        for compared in COMPARED.values()
        if compared.starts_from
    )
    return (
        f"{manifest.count} images of {manifest.source}; the distance of clipped Gaussian noise is "
        f"{noise:.3g}. Sampling was timed on {device} per actor, without the extraction of features. The "
        "time points of consistency models are those of the recipe for two evaluations, and of a Karras grid "
        "for more; TCM's are geometric. Training times are without those of the models started from: "
        f"{starts}."
    )
