"""Model cards: what a model is, how good it is and how it is used, in Markdown for pages and model hubs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cm_ray.drawing.model_labels import class_menu
from cm_ray.errors import plain, spoken
from cm_ray.metrics.score import Score
from cm_ray.networks.formats.reading import read_spec
from cm_ray.networks.initial_weights import initial_weights_warning
from cm_ray.networks.model import ModelSpec
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.text import text_of
from cm_ray.storage.files import inside

CARD, PICTURE = "README.md", "samples.png"
"""Files of a card in a folder: the text, and a grid of samples."""
_MOST_CLASSES = 40
_LIBRARIES = {"diffusers": "diffusers", "model": "cm_ray"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """The facts in a run directory about the training of its model; the defaults say nothing."""

    scores: Sequence[Score] = ()
    noise: float | None = None
    """The first score's Fréchet distance of clipped Gaussian noise; None if it was not measured."""
    recipe: str = ""
    steps: int = 0
    """Number of training steps after which the weights were taken."""
    data: str = ""
    """Source of the training images."""
    fingerprint: str = ""
    count: str = ""
    """Number of training images."""
    grids: Sequence[Path] = field(default=())
    """Grids of samples, one for each sampler, in the order of the scores."""


def training_of(run: RunDirectory) -> Training:
    """Return what a run says about its model; of a folder that is no finished run, nothing.

    Raises UserError when its records are damaged.
    """
    if not (run.config_file.is_file() and run.result_file.is_file()):
        return Training()
    result = run.result()
    lineage = run.lineage() if run.lineage_file.is_file() else {}
    return Training(
        scores=[Score.from_file(row, run.result_file) for row in result["scores"]],
        noise=result["clipped_noise"],
        recipe=result["name"],
        steps=result["model_step"],
        data=lineage.get("data.source", ""),
        fingerprint=lineage.get("data.fingerprint", ""),
        count=lineage.get("data.count", ""),
        grids=[path for name in result["paths"]["samples"] if (path := inside(run.root, name)).is_file()],
    )


@dataclass(frozen=True, kw_only=True)
class Card:
    """A description of a model."""

    name: str
    spec: ModelSpec
    training: Training = Training()
    parameters: int = 0
    """Number of parameters; 0 leaves it out."""

    @classmethod
    def of_run(cls, run: RunDirectory) -> Card:
        """Return the card of a finished run's model. Raises UserError when its files are damaged."""
        training = training_of(run)
        return cls(name=training.recipe, spec=read_spec(run.model), training=training)

    def markdown(self, address: str, *, pictures: Mapping[str, str] = {}) -> str:
        """Return the description for a page that has a title of its own.

        address: the model as commands and `cm_ray.load` take it.  pictures: address of each picture by its
        title.
        """
        return "\n".join(self._body(address, pictures)).strip() + "\n"

    def readme(self, format: str, *, picture: str = "") -> str:
        """Return README.md of an exported folder, with the metadata that model hubs read.

        format: of the export.  picture: file of a grid of samples beside it; empty: none.
        """
        metadata = self._metadata(_LIBRARIES[format])
        # JSON is YAML, and quotes whatever a name contains
        head = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in metadata.items()]
        pictures = {"Samples": picture} if picture else {}
        body = self._body(".", pictures, _uses_of_folder(format, self.spec))
        publish = "The license of the weights is not stated here; who publishes them adds `license` above."
        return "\n".join(["---", *head, "---", "", f"# {plain(self.name)}", "", *body, "", publish, ""])

    def _body(self, address: str, pictures: Mapping[str, str], uses: Sequence[str] = ()) -> list[str]:
        shown = [f"![{title}]({source})" for title, source in pictures.items()]
        return [
            *self._facts(),
            *self._scores(),
            *(["", *shown] if shown else []),
            "",
            "**How to use it**",
            "",
            *(uses or _uses(address)),
        ]

    def _facts(self) -> Iterator[str]:
        yield f"A {facts_of(self.spec, self.parameters)}"
        training = self.training
        if training.data:
            images = f"{training.count} images" if training.count else "images"
            digest = f" (fingerprint `{training.fingerprint[:16]}`)" if training.fingerprint else ""
            yield f"Trained on {images} of `{plain(training.data)}`{digest}."
        if training.steps:
            yield f"The weights are those after {training.steps:,} steps."
        if self.spec.classes:
            menu = list(class_menu(self.spec))
            more = f" and {len(menu) - _MOST_CLASSES} more" if len(menu) > _MOST_CLASSES else ""
            yield f"Classes: {', '.join(map(plain, menu[:_MOST_CLASSES]))}{more}."
        if self.spec.ema_length:
            yield f"They are the average of length {self.spec.ema_length:g} of the training."
        if warning := initial_weights_warning(self.spec, self.name):
            yield ""
            yield f"**Warning**: {plain(spoken(warning))}"

    def _scores(self) -> Iterator[str]:
        training = self.training
        if not training.scores:
            yield from ("", "No scores of it are known here.")
            return
        yield from ("", "| score | sampler | evaluations | value | of noise |", "|---|---|---:|---:|---:|")
        for score in training.scores:
            error = f" ± {score.error:.2g}" if score.error is not None else ""
            share = f"{score.value / training.noise:.1%}" if training.noise else ""
            sampler = f"`{score.key['sampler']}` | {score.key['nfe']}"
            yield f"| {score.name} | {sampler} | {score.value:.4g}{error} | {share} |"
        yield from ("", "Lower is better; the last column compares with clipped Gaussian noise.")

    def _metadata(self, library: str) -> dict[str, Any]:
        """Return the metadata of a model card of the Hugging Face hub."""
        found = {
            "library_name": library,
            "pipeline_tag": "unconditional-image-generation",
            "tags": ["cm_ray", "diffusion" if self.spec.diffusion.denoiser else "consistency-model"],
        }
        if not self.training.scores:
            return found
        task = {"type": "unconditional-image-generation"}
        data = {"name": self.training.data or "images", "type": self.training.fingerprint or "images"}
        metrics = [
            {"type": "fid" if score.is_fid else score.name, "name": score.metric, "value": score.value}
            for score in self.training.scores
        ]
        results = [{"task": task, "dataset": data, "metrics": metrics}]
        return found | {"model-index": [{"name": self.name, "results": results}]}


def facts_of(spec: ModelSpec, parameters: int = 0) -> str:
    """Return a line about a model's kind, images, classes, parameters and sampler."""
    c, h, w = spec.shape
    size = f"{parameters / 1e6:.2f} M parameters; " if parameters else ""
    kind = "diffusion" if spec.diffusion.denoiser else "consistency"
    classes = f"{len(class_menu(spec)):,} classes" if spec.classes else "no classes"
    return (
        f"{kind} model; {w}x{h}, {'grey' if c == 1 else 'colour'}; {classes}; {size}"
        f"sampled by `{text_of(spec.sampler)}`."
    )


def card_files(card: Card, format: str) -> dict[str, bytes]:
    """Return the files of the card of an exported folder: README.md, and a grid of samples if there is one.

    format: of the export. One that writes a single file has no card.
    """
    if format not in _LIBRARIES:
        return {}
    if not card.training.grids:
        return {CARD: card.readme(format).encode()}
    picture = card.training.grids[0].read_bytes()
    return {CARD: card.readme(format, picture=PICTURE).encode(), PICTURE: picture}


def _uses(address: str) -> list[str]:
    """Return a command and Python for a model that commands find at an address."""
    sample = shlex.join(["cm-ray", "sample", address, "--samples", "25", "--out", "samples"])
    python = ["import cm_ray as cm", "", f"cm.load({address!r}).sample(25, seed=0).save('samples.png')"]
    return ["```bash", sample, "```", "", "```python", *python, "```"]


def _uses_of_folder(format: str, spec: ModelSpec) -> list[str]:
    """Return how an exported folder is used by the library that it was written for."""
    if format != "diffusers":
        return _uses("path/of/this/folder")
    label = ", class_labels=0" if spec.classes else ""
    lines = [
        "from diffusers import ConsistencyModelPipeline",
        "",
        'pipeline = ConsistencyModelPipeline.from_pretrained("path/of/this/folder")',
        f"pipeline(num_inference_steps=1{label}).images[0].save('sample.png')",
    ]
    return ["```python", *lines, "```", "", "`cm_ray.load` and `cm-ray sample` read the same folder."]
