"""Settings of the command that draws images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cm_ray.errors import UserError
from cm_ray.networks.arithmetic import Precision
from cm_ray.own_code import CodeSettings


@dataclass(frozen=True, kw_only=True)
class Sample(CodeSettings):
    """Draw images from a model: cm-ray sample models:/cm_ray-digits@champion --nfe 2

    MODEL is a run directory, a model's folder, a model in the registry (models:/NAME@champion or
    models:/NAME/3), a file of OpenAI's weights, called as theirs are (cd_imagenet64_l2.pt), or a directory of
    diffusers.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run directory, model folder, models:/NAME@ALIAS, file of weights or directory of diffusers."""
    out: Path = Path("samples")
    """File to write, without an ending, or its address (s3://bucket/x): OUT.png and OUT.npz."""
    samples: int = 100
    """Number of images."""
    sampler: str = ""
    """one-step, multistep@2.0,0.8, multistep:4, jumps:4, heun:18, euler:40, dpm2:10, ancestral:100,
    pd:4, langevin:232,repeats=5, pc:1000,sde=vp, ode; empty: the model's own."""
    nfe: int = 0
    """Number of steps of the model's own sampler: the network evaluations of a consistency model; instead of
    --sampler."""
    taus: tuple[float, ...] = ()
    """Time points of a consistency model beyond t_max, descending; instead of --sampler."""
    ts: str = ""
    """Time points as OpenAI's code writes them: 0,22,39, indices on a grid of --boundaries 40; instead of
    --sampler and --taus."""
    boundaries: int = 0
    """Boundaries of the grid that --ts counts on."""
    guidance: float | None = None
    """Guidance scale of a diffusion model, or of a student that takes it; 1 is none. It is short for a text
    such as --sampler heun:18,guidance=2."""
    weak: str = ""
    """A weaker diffusion model that guides this one (autoguidance), named like MODEL; empty: the model itself
    without the class."""
    classifier: str = ""
    """Folder of a noise-conditional classifier, which cm-ray classifier writes: its gradient is added to the
    score of a diffusion model. A model without classes takes the --label of its classes."""
    class_scale: float | None = None
    """Scale of the classifier's gradient; by default 1."""
    seed: int = 0
    """Seed of the noise, and of the labels of a conditional model."""
    label: str = ""
    """Class of a conditional model's images by its name, or several, cat,dog, drawn equally often; a number
    where classes have no names. balanced, the default: all classes that the model was trained on, equally
    often; data: as often as in its training data; null: no class, of a model with label dropout."""
    untrained: bool = False
    """Allow a --label of which the model has seen no image."""
    batch_size: int = 0
    """Images per network evaluation; 0: as many as fit into the memory, 256 at most."""
    precision: Precision = "float32"
    """Arithmetic of the network; all but float32 are faster on GPUs."""
    device: str = "auto"
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""

    def __post_init__(self) -> None:
        """Raise UserError on options that exclude each other, or a number that is out of its range."""
        if self.nfe < 0:
            raise UserError(f"--nfe must be at least 1, or 0 for the model's own sampler, not {self.nfe}.")
        if self.ts and (self.sampler or self.taus or self.nfe):
            raise UserError("Give one of --ts, --sampler, --nfe and --taus.")
        if self.untrained and not self.label:
            raise UserError("--untrained is for the classes of --label: give --label, too, or leave it out.")
        if self.boundaries and not self.ts:
            raise UserError("--boundaries are those of the grid of --ts: give --ts, too, or leave them out.")
