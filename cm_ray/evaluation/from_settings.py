"""The extractor and the labels of a run's scores, from its settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from cm_ray.drawing.model_labels import LabelledImages, scored_labels
from cm_ray.metrics.extractors.extractor import Extractor
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.sections import EvaluationSettings
from cm_ray.sampling.labels import BALANCED, DATA, LabelDraw


def extractor_opener(evaluation: EvaluationSettings) -> Callable[[torch.device | str], Extractor] | None:
    """Return a function that opens the extractor of the settings on a device; None without an extractor."""
    if not _scored(evaluation):
        return None
    return partial(
        open_extractor, evaluation.extractor, weights=evaluation.weights, resizing=evaluation.resizing
    )


def evaluation_labels(
    evaluation: EvaluationSettings,
    spec: ModelSpec,
    data: LabelledImages,
    say: Callable[[str], object] | None = None,
) -> LabelDraw | None:
    """Return the draw of the labels of a run's samples; None for an unconditional model.

    data: the training data, which is the reference of the scores. say: gets a sentence about the draw. Raises
    UserError when the settings ask for a class that cannot be drawn.
    """
    asked = evaluation.labels or (BALANCED if spec.classes and not _scored(evaluation) else DATA)
    return scored_labels(spec, data, asked, say)


def _scored(evaluation: EvaluationSettings) -> bool:
    return evaluation.extractor != "none"
