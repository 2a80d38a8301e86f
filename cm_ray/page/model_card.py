"""A description of a model in Markdown: images, classes, scores and time points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cm_ray.drawing.model_labels import class_menu
from cm_ray.errors import plain, spoken
from cm_ray.metrics.score import Score
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.networks.model import Model
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.text import ONE_STEP, text_of
from cm_ray.tracking.registry import existing_store, get_version, parse_model_uri
from cm_ray.tracking.store import calling_mlflow, open_client

_TIMEOUT_S = 30


class ScoreLine(NamedTuple):
    """A score of a model."""

    name: str
    sampler: str
    """Text of the sampler."""
    value: float


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A description of a model."""

    name: str
    """The model, as the user named it."""
    facts: str
    """A line about its images, classes and sampler."""
    scores: tuple[ScoreLine, ...]
    text: str
    """All of it, in Markdown."""


def model_card(model: Model, name: str, folder: Path, tracking_uri: str) -> ModelCard:
    """Return the description of a model: name, images, classes, parameters, scores and time points.

    name: as given by the user.  folder: the model's folder.  tracking_uri: MLflow store of a registered
    model.
    """
    scores, facts = _scores(name, folder, tracking_uri), _facts(model)
    spec = model.spec
    lines = [
        f"**{name}**: {facts}",
        *_notes(model, name),
        "",
        *_classes(model),
        "| score | sampler | value |",
        "|---|---|---:|",
        *[f"| {score.name} | `{score.sampler}` | {score.value:.4g} |" for score in scores],
        "",
        "| NFE | time points |",
        "|---:|---|",
        *[f"| {len(taus) + 1} | {', '.join(f'{tau:.4g}' for tau in taus)} |" for taus in spec.time_points],
    ]
    return ModelCard(name, facts, tuple(scores), "\n".join(lines))


def _facts(model: Model) -> str:
    spec = model.spec
    c, h, w = spec.shape
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kind = "diffusion" if spec.diffusion.denoiser else "consistency"
    classes = f"{len(class_menu(spec)):,} classes" if spec.classes else "no classes"
    return (
        f"{kind} model; {w}x{h}, {'grey' if c == 1 else 'colour'}; {classes}; {parameters / 1e6:.2f} M "
        f"parameters; sampled by `{text_of(spec.sampler)}`."
    )


def _classes(model: Model) -> list[str]:
    """Return a paragraph with the names of the classes, if there are any."""
    return [f"Classes: {', '.join(class_menu(model.spec))}.", ""] if model.spec.classes else []


def _notes(model: Model, name: str) -> list[str]:
    """Return paragraphs about the average that the weights are."""
    notes = []
    if model.spec.ema_length:
        notes += ["", f"The weights are the average of length {model.spec.ema_length:g} of its training."]
    if warning := initial_weights_warning(model.spec, name):
        notes += ["", f"**Warning**: {plain(spoken(warning))}"]
    return notes


def _scores(name: str, folder: Path, tracking_uri: str) -> Sequence[ScoreLine]:
    """Return the scores of a registered version, or of the run that the folder is in."""
    if name.startswith("models:"):
        with calling_mlflow(_TIMEOUT_S):
            version = get_version(open_client(existing_store(tracking_uri)), *parse_model_uri(name))
        tags = version.tags
        if "score.value" not in tags:
            return []
        score, _, sampler = tags["score.name"].partition("/")
        return [ScoreLine(score, sampler or ONE_STEP, float(tags["score.value"]))]
    run = RunDirectory(folder.parent)
    trained = run.config_file.is_file() and run.result_file.is_file()
    scores = [Score.from_file(row, run.result_file) for row in run.result()["scores"]] if trained else []
    return [ScoreLine(score.name, score.key["sampler"], score.value) for score in scores]
