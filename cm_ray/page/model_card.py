"""A description of a model in Markdown: images, classes, scores and time points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cm_ray.drawing.model_labels import class_menu
from cm_ray.errors import plain, spoken
from cm_ray.evaluation.card import facts_of
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.networks.model import Model
from cm_ray.tracking.named_card import named_card


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
    card, spec = named_card(model, name, folder, tracking_uri), model.spec
    scores = [ScoreLine(score.name, score.key["sampler"], score.value) for score in card.training.scores]
    facts = facts_of(spec, card.parameters)
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
