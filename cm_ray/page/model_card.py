"""A description of a model in Markdown: images, classes, scores and time points."""

from __future__ import annotations

from pathlib import Path

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


def model_card(model: Model, name: str, folder: Path, tracking_uri: str) -> str:
    """Return a text with the name, images, classes, parameters, scores and time points of a model.

    name: as given by the user.  folder: the model's folder.  tracking_uri: MLflow store of a registered
    model.
    """
    spec = model.spec
    c, h, w = spec.shape
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        f"**{name}**: {w}x{h}, {'grey' if c == 1 else 'colour'}; {parameters / 1e6:.2f} M parameters; "
        + (f"classes {', '.join(class_menu(spec))}" if spec.classes else "no classes")
        + f"; sampled by `{text_of(spec.sampler)}` by default.",
        *_notes(model, name),
        "",
        "| score | sampler | value |",
        "|---|---|---:|",
        *[
            f"| {score} | `{sampler}` | {value:.4g} |"
            for score, sampler, value in _scores(name, folder, tracking_uri)
        ],
        "",
        "| NFE | time points |",
        "|---:|---|",
        *[f"| {len(taus) + 1} | {', '.join(f'{tau:.4g}' for tau in taus)} |" for taus in spec.time_points],
    ]
    return "\n".join(lines)


def _notes(model: Model, name: str) -> list[str]:
    """Return paragraphs about the average that the weights are."""
    notes = []
    if model.spec.ema_length:
        notes += ["", f"The weights are the average of length {model.spec.ema_length:g} of its training."]
    if warning := initial_weights_warning(model.spec, name):
        notes += ["", f"**Warning**: {plain(spoken(warning))}"]
    return notes


def _scores(name: str, folder: Path, tracking_uri: str) -> list[tuple[str, str, float]]:
    """Return (score, sampler, value) of a registered version, or of the run that the folder is in."""
    if name.startswith("models:"):
        with calling_mlflow(_TIMEOUT_S):
            version = get_version(open_client(existing_store(tracking_uri)), *parse_model_uri(name))
        tags = version.tags
        if "score.value" not in tags:
            return []
        score, _, sampler = tags["score.name"].partition("/")
        return [(score, sampler or ONE_STEP, float(tags["score.value"]))]
    run = RunDirectory(folder.parent)
    trained = run.config_file.is_file() and run.result_file.is_file()
    scores = [Score.from_file(row, run.result_file) for row in run.result()["scores"]] if trained else []
    return [(score.name, score.key["sampler"], score.value) for score in scores]
