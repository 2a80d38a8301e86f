"""Comparison of methods on one data set: table 1 and figure 4 of Song et al. 2023."""

from __future__ import annotations

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
from cm_ray.errors import SettingError, UserError, setting
from cm_ray.evaluation.conclusion import FINAL_SEED
from cm_ray.evaluation.from_settings import evaluation_labels, extractor_opener
from cm_ray.evaluation.reference import Shards
from cm_ray.evaluation.scorer import frechet_score, request_key, sample_count
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.metrics.score import ROW, Score
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes import named
from cm_ray.recipes.recipe import TEACHER, Recipe, check_models_named
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

METHODS: tuple[Method, ...] = ("edm", "cd", "pd", "ect", "ct", "ict")
"""All methods, in the order of the table."""
_CELL = {
    "of": {str: ANYTHING},
    "cell": {
        "method": str,
        "score": ROW,
        "noise_distance": float,
        "seconds_per_1000": float,
        "training_s": (float, None),
    },
}
"""The shape of a file of a measured cell."""
EVALUATIONS = (1, 2, 4, 8)
"""Numbers of network evaluations of the columns."""
_LINES = {
    "edm": ("EDM (DDIM)", "euler"),
    "cd": ("CD", "multistep"),
    "pd": ("PD", "pd"),
    "ect": ("ECT", "multistep"),
    "ct": ("CT", "multistep"),
    "ict": ("iCT", "multistep"),
}
"""Name in the table, and sampler, of every method."""


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
    """Methods of the table, among METHODS; edm, the teacher, is always included."""
    tracking_uri: str = ""
    """URI of MLflow, as in `TrackingSettings`; empty for mlflow.db beside the folder."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the table that is to be measured."""

    method: str
    run: RunDirectory
    model: Path
    sampler: str


def make_table(table: Table) -> list[Path]:
    """Train the models, score their samples and write the table; return its files.

    The same call resumes an interrupted one: runs continue from their last checkpoints, and scores of the
    same model with the same key are not measured again. Raises UserError as `train` does.
    """
    configs = recipes_of(table)  # invalid settings are refused before anything is written
    group = RunGroup(table.folder, name=table.folder.name, uri=table.tracking_uri, experiment=EXPERIMENT)
    with RunDirectory(table.folder).locked(), group.closed():
        return _make(table, configs, group)


def _make(table: Table, configs: Mapping[str, Recipe], group: RunGroup) -> list[Path]:
    group.log(params={"data": table.data, **table.changes})
    tracked = {
        "tracking.uri": group.uri,
        "tracking.experiment": EXPERIMENT,
        "tracking.parent_run": group.run_id,
    }
    with connected():
        data = configs["edm"].data
        prepared = PreparedData(data, prepare_shards(data)[0])
        for number, (method, config) in enumerate(configs.items(), 1):
            say(f"[{number}/{len(configs)}] {method}")
            train(override(config, tracked), prepared=prepared)
        cells, note = _scored(table, configs["edm"], _entries(table, list(configs)), prepared)
    stem = table.folder / "table"
    files = write_comparison(cells, stem, title=f"Consistency models on {table.data}", note=note)
    values = {f"{cell.method} {cell.sampler}": cell.value for cell in cells}
    group.log(metrics=values, files=files)
    return files


def recipes_of(table: Table) -> dict[str, Recipe]:
    """Return the recipe of every method, with its run directory and its teacher.

    Raises UserError when a method cannot be trained or scored.
    """
    chosen = [method for method in METHODS if method in ("edm", *table.methods)]
    _check_changes(table, chosen)
    configs: dict[str, Recipe] = {method: _config(table, method) for method in chosen}
    for config in configs.values():
        check_models_named(config)
        if config.evaluation.extractor == "none":
            raise UserError(
                f"The recipe {config.name} has no feature extractor, so nothing can be compared; set "
                f"{setting('evaluation.extractor')}."
            )
        if (rounds := config.method.halving) and not set(EVALUATIONS) <= set(rounds.intervals):
            raise UserError(
                f"Progressive distillation from {rounds.s1} steps to {rounds.s0} has no "
                f"model for each of {', '.join(map(str, EVALUATIONS))} steps; set {setting('rounds.s0')} "
                f"to 1 and {setting('rounds.s1')} to {max(EVALUATIONS)} or more."
            )
    return configs


def _check_changes(table: Table, methods: Sequence[str]) -> None:
    """Raise SettingError on a change of a setting that no recipe has."""
    recipes = [sketch(named(f"{method}_{table.data}"), table.changes) for method in methods]
    known = {path for recipe in recipes for path in flatten(recipe)}
    for path in table.changes:
        if path not in known:
            problems = [why_unknown(recipe, path) for recipe in recipes]
            raise SettingError(path, next((each for each in problems if "did you" in each), problems[-1]))


def _config(table: Table, method: str) -> Recipe:
    """Return the recipe of a method with its run directory, its teacher and the changes that it accepts."""
    recipe = named(f"{method}_{table.data}")
    known = flatten(sketch(recipe, table.changes))
    changes = {path: value for path, value in table.changes.items() if path in known}
    config = override(recipe, {**changes, "run_dir": str(table.folder / method)})
    teacher = str(table.folder / "edm")
    if config.teacher is not None:
        return override(config, {"teacher.model": teacher})
    if config.init_from.model == TEACHER:
        return override(config, {"init_from.model": teacher})
    return config


def _entries(table: Table, methods: Sequence[str]) -> Iterator[_Entry]:
    """Yield the lines: the teacher with its own sampler, and every method with 1, 2, 4 and 8 evaluations."""
    for method in methods:
        run = RunDirectory(table.folder / method)
        if method == "edm":
            yield _Entry("EDM (Heun)", run, run.model, "own")
        label, sampler = _LINES[method]
        for count in EVALUATIONS:
            model = run.rounds / str(count) if method == "pd" else run.model
            yield _Entry(label, run, model, f"{sampler}:{count}")


def _scored(
    table: Table, config: Recipe, entries: Iterator[_Entry], prepared: PreparedData
) -> tuple[list[Cell], str]:
    """Return the cells, and a note about how they were measured."""
    shards, manifest = prepare_shards(config.data, prepared)
    opener = extractor_opener(config.evaluation)
    assert opener is not None, "recipes_of has refused a recipe without an extractor"
    extractor = opener("cpu")
    count = sample_count(config.evaluation.samples, manifest.count)
    workers = plan_training(config.cluster, Resources.load(Path(config.run_dir)))
    work = RunDirectory(table.folder).scoring_work
    with SamplerPool(opener, actors_like(workers)) as pool:
        scorer = PoolScorer(pool, extractor, work)
        reference = scorer.reference(Shards(shards, manifest))
        noise = frechet_distance(scorer.noise(manifest.shape, count), reference)

        def measured(entry: _Entry) -> Cell:
            request = _request(entry, config, count, manifest)
            sampled = scorer.sampled(entry.model, request)
            key = request_key(extractor, request, manifest.fingerprint)
            return Cell(
                method=entry.method,
                score=frechet_score(sampled.groups, reference, key).to_row(),
                noise_distance=noise,
                seconds_per_1000=sampled.seconds_per_1000,
                training_s=entry.run.result()["timings"]["training_s"],
            )

        key = {"samples": count, "batch_size": config.sampled_at_once, "actors": str(workers)}
        key |= {"reference": manifest.fingerprint, "extractor": extractor.weights_sha256}
        key |= {"labels": config.evaluation.labels}
        cells = [_cached(table, entry, measured, key) for entry in entries]
    remove(work)
    return cells, _note(workers, manifest, config, noise)


def _request(entry: _Entry, config: Recipe, count: int, manifest: Manifest) -> Request:
    spec = load_model(entry.model).spec
    return Request(
        count=count,
        seed=config.seed + FINAL_SEED,
        sampler=sampler_of(spec, entry.sampler),
        labels=evaluation_labels(config.evaluation, spec, manifest),
        unit=config.sampled_at_once,
        precision=config.precision,
    )


def _cached(table: Table, entry: _Entry, measure: Callable[[_Entry], Cell], key: dict[str, Any]) -> Cell:
    """Return the cell of an entry; it is measured once for the same model, sampler and key."""
    name = f"{entry.run.root.name}-{entry.model.name}-{entry.sampler.replace(':', '-')}.json"
    file = table.folder / "cells" / name
    key = {"model_sha256": model_digest(entry.model), **key}
    if file.is_file() and (cached := read_json(file, _CELL))["of"] == key:
        Score.from_file(cached["cell"]["score"], file)
        return Cell(**cached["cell"])
    cell = measure(entry)
    write_json(file, {"of": key, "cell": cell.to_row()})
    say(f"{cell.method}, {cell.sampler}: {cell.value:.4g}, {cell.seconds_per_1000:.3g} s per 1,000 images")
    return cell


def _note(workers: WorkerPlan, manifest: Manifest, config: Recipe, noise: float) -> str:
    device = "a GPU" if workers.use_gpu else "one CPU core"
    return (
        f"{manifest.count} images of {manifest.source}; the distance of clipped Gaussian noise is "
        f"{noise:.3g}. Sampling was timed on {device} per actor, without the extraction of features. The "
        "time points of consistency models are those of the recipe for two evaluations, and of a Karras grid "
        "for more. EDM is the teacher of CD, PD and ECT; their training times do not include its own. Seed "
        f"{config.seed}."
    )
