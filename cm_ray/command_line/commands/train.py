"""cm-ray train: the training of a recipe, or of settings that are chosen for the images and a time."""

from __future__ import annotations

from cm_ray.cluster.training.in_time import planned, train_automatically
from cm_ray.cluster.training.run import train
from cm_ray.data.take_survey import take_survey
from cm_ray.recipes.automatic import AutoTraining
from cm_ray.recipes.recipe import Recipe


def run(settings: Recipe | AutoTraining) -> None:
    """Train to the last step; the same command goes on after an interruption."""
    if isinstance(settings, AutoTraining):
        train_automatically(settings)
    else:
        train(settings)


def look(settings: Recipe | AutoTraining) -> None:
    """Say what is understood of the images, and what would be chosen for them on this machine."""
    data = settings.data
    survey = take_survey(data.path, data.read_options)
    print(survey)
    if isinstance(settings, AutoTraining):
        print(planned(settings, survey))
