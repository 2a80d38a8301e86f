"""The weaker model of autoguidance, beside the model that it guides.  Karras et al. 2024."""

from __future__ import annotations

import hashlib
import json

from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec, spec_to_dict

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


def digest_of(model: Model) -> str:
    """Return the first digits of a SHA-256 of a model's specification and weights."""
    digest = hashlib.sha256(json.dumps(spec_to_dict(model.spec), sort_keys=True).encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:_DIGITS]
