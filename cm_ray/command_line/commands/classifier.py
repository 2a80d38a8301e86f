"""The command that trains a noise-conditional classifier."""

from __future__ import annotations

from cm_ray.api.classifiers import train_classifier
from cm_ray.command_line.settings.classifier import ClassifierSettings
from cm_ray.runs.console import say
from cm_ray.training.noise_classifier import ClassifierTraining


def run(settings: ClassifierSettings) -> None:
    """Train, and print the folder."""
    training = ClassifierTraining(
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )
    train_classifier(
        settings.model,
        settings.data,
        settings.out,
        channels=settings.channels,
        training=training,
        device=settings.device,
        tracking_uri=settings.tracking_uri,
        say=say,
    )
    print(settings.out)
