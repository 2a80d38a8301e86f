"""Writes a model as one file of weights, as a program of torch.export, or as ONNX.

`diffusers_pipeline` writes a directory for diffusers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cm_ray.core.types import Images, Labels
from cm_ray.errors import UserError
from cm_ray.extras import needs
from cm_ray.networks.formats.reading import SPEC_KEY
from cm_ray.networks.model import Model, spec_to_dict
from cm_ray.storage.files import written_aside

_MOST_BYTES = 1_900_000_000
"""The largest weights of an ONNX file: protocol buffers are limited to 2 GiB."""


class OneStep(nn.Module):
    """One-step generation as a module.  Song et al. 2023, Algorithm 1 without its loop."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.t_max = model.spec.diffusion.t_max

    def forward(self, noise: Images, labels: Labels | None = None) -> Images:
        """Map standard normal noise (b, c, h, w) and labels (b,) to images in [-1, 1] (b, c, h, w)."""
        t = torch.full_like(noise[:, 0, 0, 0], self.t_max)
        return self.model(self.t_max * noise, t, labels).clamp(-1.0, 1.0)


def write_safetensors(file: Path, model: Model) -> None:
    """Write the weights by OpenAI's names, with the specification in the metadata, for `read_model`."""
    weights = {name: value.cpu().contiguous() for name, value in model.network.state_dict().items()}
    metadata = {"format": "pt", SPEC_KEY: json.dumps(spec_to_dict(model.spec))}
    with written_aside(file) as aside:
        save_file(weights, aside, metadata=metadata)


def write_program(file: Path, model: Model) -> None:
    """Write the one-step sampler, for any batch size. Load it with ``torch.export.load(file).module()``.

    Raises UserError for a diffusion model.
    """
    program = _program(model)
    with written_aside(file) as aside, aside.open("wb") as opened, _quiet():
        torch.export.save(program, opened)


def write_onnx(file: Path, model: Model) -> None:
    """Write the one-step sampler as ONNX, for any batch size: from noise and labels to images.

    Raises UserError for a diffusion model, for a model that is too large for the format, and when onnx and
    onnxscript are not installed.
    """
    needs("onnx", "onnxscript", extra="onnx")
    if (size := sum(weights.nbytes for weights in model.network.parameters())) > _MOST_BYTES:
        raise UserError(
            f"{size / 1e9:.1f} GB of weights are too large for an ONNX file; export the model as torch."
        )
    program = _program(model)
    with _quiet():
        exported: Any = torch.onnx.export(program, dynamo=True, verbose=False)
    with written_aside(file) as aside:
        exported.save(aside, external_data=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings and logs of the exporters."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _program(model: Model) -> ExportedProgram:
    spec = model.spec
    if spec.diffusion.boundary == "none":
        raise UserError(
            "This is a diffusion model, and the one-step sampler is for consistency models; export it as "
            "safetensors."
        )
    noise = torch.zeros(2, *spec.shape)
    labels: Tensor | None = torch.zeros(2, dtype=torch.long) if spec.classes else None
    batch = {0: Dim("batch")}
    inputs, shapes = ((noise, labels), (batch, batch)) if spec.classes else ((noise,), (batch,))
    with torch.no_grad():
        return torch.export.export(OneStep(model.cpu().eval()), inputs, dynamic_shapes=shapes, strict=False)
