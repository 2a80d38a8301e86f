"""Settings of the command that chooses the length of an average."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cm_ray.core.averages import LONGEST
from cm_ray.errors import UserError
from cm_ray.own_code import CODE, CodeSettings
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.recipes.sections import Resizing


@dataclass(frozen=True, kw_only=True)
class AverageLengths(CodeSettings):
    """Choose the length of a run's average after its training: cm-ray averages runs/demo --export best

    RUN is a finished run with --averages power. Averages of all lengths are made of its snapshots and scored
    on the same noise, on Ray. RUN gets averages.md, a table, and averages.png, a plot; averages.json keeps
    the scores, so that the same command goes on after an interruption, and repeats none.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, or the name of a run."""
    lengths: tuple[str, ...] = ()
    """Lengths (sigma_rel) to score, in (0, 0.2887], such as 0.03 0.05 0.1; empty: averages.candidates of the
    run."""
    step: int = 0
    """Training step after which the averages are taken; 0: that of the run's model."""
    samples: int = 0
    """Samples for each length; 0: as many as the run scores, at most 10,000."""
    sampler: str = ""
    """Sampler: one-step, multistep@2.0,0.8, heun:18 ...; empty: the first that the run scores."""
    seed: int | None = None
    """Seed of the noise and the labels; by default the run's plus 4."""
    export: str = ""
    """Folder to write the best model to; nothing that exists is replaced. A single length is not scored."""
    data: str = ""
    """Images to compare with, as in training; empty: those that RUN was trained on."""
    size: int = 0
    """Crop and resize the images to this many pixels; 0 takes them as they are."""
    extractor: str = field(default="", metadata=CODE)
    """inception-2015 (FID's), clean-fid, dinov2-vitl14 (FD-DINOv2), dinov2-vitb14, dinov2-vits14,
    cifar-resnet56, cifar-resnet20, digits, scattering, or your own as package.module:factory;
    empty: that of RUN."""
    weights: str = ""
    """File of the extractor's published weights, or a folder with it; empty: an environment variable, the
    cache, or a download, with the SHA-256 checked in any case."""
    resizing: Resizing = "legacy_tensorflow"
    """The resizing of images to Inception's 299 x 299: as CIFAR-10's FIDs were published, or clean."""
    batch_size: int = 0
    """Images per network evaluation; 0: as many as fit into the memory, 256 at most."""
    actors: ActorSettings = field(default_factory=ActorSettings)

    def __post_init__(self) -> None:
        """Raise UserError, naming the option, on a value that is out of its range."""
        for length in self.numbers:
            if not 0 < length <= LONGEST:
                raise UserError(f"--lengths must be in (0, {LONGEST:.4f}], not {length:g}.")
        for name, least in {"step": 0, "size": 0, "batch_size": 0, "seed": 0}.items():
            number = getattr(self, name)
            if number is not None and number < least:
                raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {number}.")
        if self.samples != 0 and self.samples < 2:
            raise UserError(f"--samples must be at least 2 for a score, or 0, not {self.samples}.")

    @property
    def numbers(self) -> tuple[float, ...]:
        """The lengths as numbers; they may be separated by commas as well. Raises UserError on other text."""
        texts = [text for part in self.lengths for text in part.split(",") if text]
        return tuple(dict.fromkeys(_number(text) for text in texts))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"--lengths takes numbers such as 0.05, not {text!r}.")
    return number
