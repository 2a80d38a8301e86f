"""Training in this process for a budget of processor-seconds, and rows that are measured once."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS
from torch import Tensor

from cm_ray.data.image_set import ImageSet
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request
from cm_ray.evaluation.conclusion import FINAL_SEED
from cm_ray.evaluation.evaluations import mean_evaluations
from cm_ray.evaluation.from_settings import evaluation_labels
from cm_ray.evaluation.scorer import LocalScorer, frechet_score, request_key
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.frechet import frechet_distance
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, save_model
from cm_ray.recipes.comparison import Line
from cm_ray.recipes.recipe import Recipe
from cm_ray.reports.comparison import Cell
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.settings.tree import override
from cm_ray.storage.files import remove, write_json
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine
from cm_ray.training.specification import model_spec

_SKIPPED, _TIMED = 3, 12
_EVERY_S = 60.0
"""Processor-seconds between two checkpoints."""


def engine_of(recipe: Recipe, images: ImageSet, start: Model | None) -> Engine:
    """Return the engine of a recipe. start: the model that it has as a teacher, or starts from."""
    begins = None if start is None or not recipe.init_from.model else start.network.state_dict()
    teacher = start if recipe.method.needs_teacher else None
    return Engine(recipe, model_spec(recipe, images), teacher=teacher, initial=begins)


def batches_of(recipe: Recipe, images: ImageSet, step: int) -> Iterator[Batch]:
    """Return the batches of a training from a step on."""
    found = images.batches(seed=recipe.seed, batch_size=recipe.batch_size, start_step=step)
    return (Batch(*batch) for batch in found)


def step_seconds(recipe: Recipe, images: ImageSet, start: Model | None) -> float:
    """Return the processor-seconds of a training step: the median of the steps after the first ones."""
    engine, seconds = engine_of(recipe, images, start), []
    batches = batches_of(recipe, images, 0)
    for _ in range(_SKIPPED + _TIMED):
        began = time.process_time()
        engine.one_step(next(batches))
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[_SKIPPED:])


def trained(recipe: Recipe, images: ImageSet, folder: Path, start: Model | None) -> None:
    """Train and save the averaged model in folder/model, and those of rounds in folder/rounds.

    An interrupted training goes on from its last checkpoint. training.json has its processor-seconds.
    """
    if (folder / "training.json").is_file():
        return
    engine, store = engine_of(recipe, images, start), CheckpointStore(folder / "checkpoints", keep=1)
    spent = folder / "spent.json"
    before = json.loads(spent.read_text()) if spent.is_file() else {"seconds": 0.0, "loss": None}
    if steps := store.steps():
        engine.restore(store.load(steps[-1]))
    began = saved = time.process_time()
    loss = before["loss"]
    for stats in engine.train(batches_of(recipe, images, engine.step)):
        loss = float(stats.loss)
        if engine.round_ended():
            _save(engine, folder / "rounds" / str(engine.sampling_steps()))
        if time.process_time() - saved > _EVERY_S:
            saved = time.process_time()
            store.save(engine.checkpoint())
            store.wait()
            write_json(spent, {"seconds": before["seconds"] + saved - began, "loss": loss})
    store.close()
    _save(engine, folder / "model")
    seconds = before["seconds"] + time.process_time() - began
    write_json(folder / "training.json", {"seconds": round(seconds, 2), "steps": engine.step, "loss": loss})
    remove(folder / "checkpoints")


def _save(engine: Engine, folder: Path) -> None:
    engine.check_finite()
    weights: dict[str, Tensor] = {name: tensor.cpu() for name, tensor in engine.averaged_weights().items()}
    remove(folder)
    save_model(folder, engine.averaged_spec(), weights)


def start_of(folder: Path | None) -> Model | None:
    """Return the model in a trained folder; None without a folder."""
    return None if folder is None else load_model(folder / "model")


def steps_within(
    seconds: float, file: Path, name: str, recipe: Recipe, images: ImageSet, start: Model | None
) -> int:
    """Return the steps that processor-seconds allow; a name's are measured once and kept in the file."""
    known: dict[str, int] = json.loads(file.read_text()) if file.is_file() else {}
    if name not in known:
        known[name] = max(10, round(seconds / step_seconds(recipe, images, start)))
        write_json(file, known)
    return known[name]


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return a recipe of so many steps; methods in continuous time warm up for a third of them."""
    changed = override(recipe, {"steps": steps})
    return override(changed, {"warmup": steps // 3}) if hasattr(recipe.method, "warmup") else changed


def sampled_row(
    folder: Path, line: Line, recipe: Recipe, data: ImageSet, extractor: Extractor, count: int
) -> tuple[dict[str, Any], Request]:
    """Return the row of a sampler of a trained model, and the request: its score, evaluations and seconds."""
    model = model_of(folder, line)
    scorer = LocalScorer(torch.device("cpu"), extractor, clock=time.process_time)
    loaded = load_model(model)
    request = Request(
        count=count,
        seed=recipe.seed + FINAL_SEED,
        sampler=sampler_of(loaded.spec, line.sampler),
        labels=evaluation_labels(recipe.evaluation, loaded.spec, data),
        unit=128,
    )
    reference, found = scorer.reference(data), scorer.sampled(model, request)
    key = request_key(extractor, request, data.fingerprint)
    return {
        "label": line.label,
        "sampler": line.sampler,
        "score": frechet_score(found.groups, reference, key).to_row(),
        "noise": frechet_distance(scorer.noise(data.shape, count), reference),
        "evaluations": mean_evaluations(loaded, request),
        "seconds_per_1000": round(found.seconds_per_1000, 4),
    }, request


def model_of(folder: Path, line: Line) -> Path:
    """Return the folder of the model that a line samples from."""
    return folder / "rounds" / line.round if line.round else folder / "model"


def cell_of(row: dict[str, Any], bits_per_dim: float | None = None) -> Cell:
    """Return the cell of a row that has a score."""
    return Cell(
        method=row["label"],
        seed=row["seed"],
        score=row["score"],
        noise_distance=row["noise"],
        evaluations=row["evaluations"],
        seconds_per_1000=row["seconds_per_1000"],
        training_s=row["training_s"],
        steps=row["steps"],
        bits_per_dim=bits_per_dim,
    )


def kept_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of results/NAME.jsonl."""
    file = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def revision() -> str:
    """Return the revision of the code; with "-dirty" if files differ from it, and empty without git."""
    found = subprocess.run(
        ("git", "describe", "--always", "--dirty"),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()
