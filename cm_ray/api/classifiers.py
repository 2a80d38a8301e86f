"""Noise-conditional classifiers in Python: trained for a diffusion model, loaded, and put beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cm_ray.data.image_set import ImageSet
from cm_ray.data.load_images import load_images
from cm_ray.drawing.autoguidance import guide_by_classifier
from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.noise_classifier import (
    ClassifierSpec,
    NoiseClassifier,
    load_classifier,
    save_classifier,
)
from cm_ray.tracking.locate import locate_model
from cm_ray.training.noise_classifier import ClassifierTraining, accuracy, train_noise_classifier

Classifier: TypeAlias = str | Path | NoiseClassifier | None
"""A classifier, by its folder or loaded; None: there is none."""
LEVELS = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Noise levels at which the accuracy of a trained classifier is said."""


def train_classifier(
    model: str | Path,
    data: object,
    out: str | Path,
    *,
    channels: int = 32,
    training: ClassifierTraining | None = None,
    device: str = "auto",
    tracking_uri: str = "",
    say: Callable[[str], object] | None = None,
) -> NoiseClassifier:
    """Train a classifier of the noisy images of a diffusion model, write it to a new folder and return it.

    model: the diffusion model, which gives the shape of the images and the noise levels. data: labelled
    images, as `load_images` reads them. out: a folder that does not exist. channels: of the first level, a
    multiple of 8. tracking_uri: of a model that is registered. say: gets sentences, the last of them with the
    accuracy at some noise levels. Raises UserError when the images have no labels or do not fit the model.
    """
    if Path(out).exists():
        raise UserError(f"{out} exists already; give another folder as {setting('out')}.")
    spec = load_model(locate_model(str(model), tracking_uri)).spec
    images, levels = _labelled(data, spec), spec.diffusion
    wanted = ClassifierSpec(
        shape=spec.shape,
        class_names=images.class_names,
        t_min=levels.t_min,
        t_max=levels.t_max,
        channels=channels,
        levels=_levels(spec),
    )
    given = images.images, images.labels
    made = train_noise_classifier(wanted, *given, training or ClassifierTraining(), device=device, say=say)
    save_classifier(Path(out), made)
    if say:
        shares = ", ".join(f"{accuracy(made, *given, t):.1%} at {t:g}" for t in LEVELS)
        say(f"{images.source}: {shares} are right, of images that it was trained on")
    return made


def _labelled(data: object, spec: ModelSpec) -> ImageSet:
    """Return labelled images of a model's shape and classes. Raises UserError on others."""
    channel, height, width = spec.shape
    images = load_images(
        data, size=height if height == width else 0, channels=1 if channel == 1 else 3 if channel == 3 else 0
    )
    if images.shape != spec.shape:
        raise UserError(f"{images.source} has images of {images.shape}, and the model of {spec.shape}.")
    if images.classes < 2 or int(images.labels.min()) < 0:
        raise UserError(f"{images.source} has no labels for all images; give images of two classes or more.")
    if spec.class_names and spec.class_names != images.class_names:
        raise UserError(f"{images.source} has other classes than the model; give its own images.")
    return images


def classified_by(model: Model, classifier: Classifier) -> str:
    """Put a classifier beside the model that it guides; return its digest, "" for None.

    Raises UserError when there is no such classifier, or when it cannot guide the model.
    """
    if classifier is None:
        return ""
    if isinstance(classifier, str | Path):
        return guide_by_classifier(model, load_classifier(Path(classifier).expanduser()), str(classifier))
    return guide_by_classifier(model, classifier, "The classifier")


def _levels(spec: ModelSpec) -> int:
    """Return the levels of a network whose last one has 4 pixels a side, or the least that can be halved."""
    side, levels = min(spec.shape[1:]), 1
    while side % 2 == 0 and side > 4 and all(each % 2**levels == 0 for each in spec.shape[1:]):
        side, levels = side // 2, levels + 1
    return levels
