"""Settings of the command that trains a noise-conditional classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cm_ray.errors import UserError
from cm_ray.own_code import CodeSettings


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(CodeSettings):
    """Train a classifier of noisy images for a model: cm-ray classifier runs/edm_digits --data digits

    Song et al. 2021, section 5. Its gradient guides samples of the model towards a class: cm-ray sample
    --classifier. --out gets classifier.json and weights.safetensors.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory, model folder, or models:/NAME@ALIAS of a diffusion model, with or without classes. It
    gives the shape of the images and the noise levels."""
    data: str = ""
    """Images with labels, in any form that cm-ray train reads."""
    out: Path = Path("classifier")
    """Folder to write; nothing that exists is replaced."""
    steps: int = 1000
    """Training steps."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 2e-3
    """Step size of AdamW, which falls to zero linearly."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    channels: int = 32
    """Channels of the network's first level; a multiple of 8."""
    seed: int = 0
    """Seed of weights, batches, times and noise."""
    device: str = "auto"
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""

    def __post_init__(self) -> None:
        """Raise UserError on a number that is out of its range, or without data."""
        if not self.data:
            raise UserError("A classifier learns from images with labels; give them as --data.")
        for name, least in {"steps": 1, "batch_size": 1, "seed": 0, "channels": 8}.items():
            if (number := getattr(self, name)) < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {number}.")
        if self.channels % 8:
            raise UserError(f"--channels must be a multiple of 8, not {self.channels}.")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise UserError("--learning-rate must be positive, and --weight-decay not negative.")
