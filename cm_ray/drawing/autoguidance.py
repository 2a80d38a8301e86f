"""Models that guide another one: the weaker model of autoguidance (Karras et al. 2024), or a classifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec, spec_to_dict
from cm_ray.networks.noise_classifier import NoiseClassifier
from cm_ray.settings.tree import to_dict

_DIGITS = 12
"""Digits of a digest in the text of a sampler."""


def guide(model: Model, weak: Model, name: str) -> str:
    """Put a weaker model beside the one that it guides; return its digest, for samplers.

    name: the weaker model's, for messages. Raises UserError when it cannot guide the model.
    """
    check_guide(model.spec, weak.spec, name)
    model.weak = weak.to(next(model.parameters()).device).eval()
    return digest_of(weak)


def check_guide(spec: ModelSpec, weak: ModelSpec, name: str) -> None:
    """Raise UserError unless a model may be guided by another one: diffusion models of the same images."""
    for each, which in ((spec, "The model"), (weak, name)):
        if not each.diffusion.denoiser or each.diffusion.guidance:
            raise UserError(f"{which} is no diffusion model, or a student; autoguidance needs two teachers.")
    if weak.shape != spec.shape:
        raise UserError(f"{name} makes images of {weak.shape}, and the model of {spec.shape}; give another.")
    if weak.classes and (not spec.classes or weak.class_names != spec.class_names):
        raise UserError(f"{name} has other classes than the model; give one of the same classes, or of none.")


def guide_by_classifier(model: Model, classifier: NoiseClassifier, name: str) -> str:
    """Put a classifier beside the diffusion model that it guides; return its digest, for samplers.

    name: the classifier's, for messages. Raises UserError when it cannot guide the model.
    """
    spec, known, levels = model.spec, classifier.spec, model.spec.diffusion
    if not levels.denoiser or levels.guidance:
        raise UserError("A classifier guides diffusion models, and the model is none, or a student.")
    if known.shape != spec.shape:
        raise UserError(
            f"{name} reads images of {known.shape}, and the model makes {spec.shape}; give another."
        )
    if spec.classes and known.class_names != spec.class_names:
        raise UserError(f"{name} has other classes than the model; give one of the same classes.")
    if known.t_min > levels.t_min * (1 + 1e-6) or known.t_max * (1 + 1e-6) < levels.t_max:
        raise UserError(
            f"{name} knows noise levels from {known.t_min:g} to {known.t_max:g}, and the model those from "
            f"{levels.t_min:g} to {levels.t_max:g}; give a classifier that was trained for this model."
        )
    model.classifier = classifier.to(next(model.parameters()).device).eval()
    return _digest(to_dict(known), classifier.state_dict())


def digest_of(model: Model) -> str:
    """Return the first digits of a SHA-256 of a model's specification and weights."""
    return _digest(spec_to_dict(model.spec), model.network.state_dict())


def _digest(values: dict[str, Any], weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:_DIGITS]
