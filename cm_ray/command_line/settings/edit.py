"""Settings of an editing job."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.errors import UserError
from cm_ray.own_code import CodeSettings
from cm_ray.recipes.measuring import ActorSettings

_OWNERS = {"mask": "inpaint", "add_noise": "denoise", "to_seed": "interpolate", "frames": "interpolate"}
"""Settings that mean something to one task alone."""


@dataclass(frozen=True, kw_only=True)
class Editing(CodeSettings):
    """Edit images with a trained model: cm-ray edit upscale --model runs/demo --image a.png

    Song et al. 2023, Algorithm 4: the model was trained for none of these tasks. Writes --out/grid.png, a row
    of before, results and the image given for the first ten images, and every result as a PNG file.
    """

    task: Annotated[
        Literal["inpaint", "colorize", "upscale", "stroke", "denoise", "interpolate"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="TASK"),
    ]
    """inpaint: make anew what a mask does not keep. colorize: keep the luminance. upscale: keep the means of
    patches. stroke: make an image of a coarse painting. denoise: remove noise of a known level. interpolate:
    the way from the samples of one seed to those of another."""
    model: str
    """Run directory, model folder, or models:/NAME@ALIAS."""
    image: str = ""
    """An image file, or a folder of them (and of its sub-folders), which is edited on Ray. upscale takes
    small images, and those of the model's size, of which it keeps the means alone."""
    mask: str = ""
    """Mask of inpaint: an image that is white where the image is kept and black where it is made anew; or a
    folder of such, called as the images are."""
    out: Path = Path("edits")
    """Folder for NAME-0.png, NAME-1.png ..., and grid.png: before, results, and the image given. Results that
    the same edit has left there are not made again."""
    samples: int = 4
    """Results for each image: sample k is made with seed + k. Of denoise one, as it draws nothing; of
    interpolate ways."""
    seed: int = 0
    """Seed of the noise, and of the labels of a conditional model. Image i of a folder has noise i."""
    label: str = ""
    """Class of all images by its name, or its number where classes have no names. By default the
    sub-folder's, where they are called as the model's classes; else drawn at random, which spoils an image of
    another class. interpolate asks for it."""
    nfe: int = 0
    """Number of network evaluations, on a Karras grid; 0: 39, of a diffusion model 200, and of interpolate
    those of the model's own sampler."""
    taus: tuple[float, ...] = ()
    """Times of the evaluations, descending, instead of --nfe; of stroke the paper's by default: 5.38 2.24.
    The greater the first, the freer of the strokes. Of interpolate: beyond t_max."""
    sampler: str = ""
    """The sampler of a diffusion model, instead of --nfe: pc:100,sde=vp or langevin:60, say. It puts the
    known part back after each update; pc:100 by default."""
    factor: int = 0
    """Factor of upscale, of width and height; 0: 2."""
    sigma: float = 0.0
    """Standard deviation of the noise of denoise, where pixels go from -1 to 1."""
    add_noise: bool = False
    """Add the noise first, in denoise, to images without."""
    to_seed: int | None = None
    """The other seed of interpolate; by default --seed + 1."""
    frames: int = 9
    """Number of images of interpolate, both ends among them."""
    resize: bool = False
    """Crop and resize images of other sizes than the model's."""
    batch_size: int = 0
    """Images per network evaluation; 0: as many as fit into the memory, 256 at most."""
    device: str = "auto"
    """Device of a single image and of interpolate: auto takes a GPU if there is one; else cpu, cuda,
    cuda:1."""
    actors: ActorSettings = field(default_factory=ActorSettings)
    """The actors that edit a folder."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""

    def __post_init__(self) -> None:
        """Raise UserError on a number that is out of range, or a setting that the task does not read."""
        for name, least in {"samples": 1, "batch_size": 0}.items():
            if (number := getattr(self, name)) < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {number}.")
        if self.nfe < 0:
            raise UserError(f"--nfe must be at least 1, or 0 for its default, not {self.nfe}.")
        if self.seed < 0 or (self.to_seed or 0) < 0:
            raise UserError("Seeds must not be negative.")
        for name, task in _OWNERS.items():
            if self.task != task and not self.is_default(name):
                raise UserError(f"--{name.replace('_', '-')} goes with {task}, not with {self.task}.")
        if self.task == "interpolate":
            self._check_interpolation()

    def is_default(self, name: str) -> bool:
        """Return whether a setting has its default value."""
        default = ActorSettings() if name == "actors" else getattr(type(self), name)
        return bool(getattr(self, name) == default)

    def _check_interpolation(self) -> None:
        for name in ("image", "factor", "sigma", "sampler", "resize", "actors"):
            if not self.is_default(name):
                raise UserError(f"interpolate goes from seed to seed: leave --{name} out.")
        if self.frames < 2:
            raise UserError(f"--frames must be at least 2, both ends, not {self.frames}.")
