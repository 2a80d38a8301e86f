"""A classifier of noisy images, p(y | x_t), whose gradient guides samplers of diffusion models.

Song et al. 2021, section 5 and appendix I.1; Dhariwal & Nichol 2021: the encoder of a U-Net, which sees the
noise level, and a linear layer of the mean features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from cm_ray.core.precondition import EDM
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Images, Labels, Times, per_sample
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM
from cm_ray.networks.blocks import ResidualBlock, SinusoidalFeatures
from cm_ray.networks.families import family_of
from cm_ray.networks.model import WEIGHTS, load_weights, open_device
from cm_ray.networks.normalisation import GroupNorm
from cm_ray.sampling.labels import LabelDraw
from cm_ray.settings.tree import from_dict, to_dict
from cm_ray.storage.files import folder_written_aside, read_json
from cm_ray.storage.tensor_files import read_safetensors

SPEC = "classifier.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSpec:
    """All that is needed to build a noise-conditional classifier again."""

    shape: tuple[int, int, int]
    """(c, h, w) of the images."""
    class_names: tuple[str, ...]
    """Names of the classes."""
    t_min: float
    """The least noise level that it was trained at."""
    t_max: float
    """The greatest noise level that it was trained at."""
    channels: int = 32
    """Channels of the first level; each further level has twice as many, 4 times at most."""
    levels: int = 2
    """Levels, of which each further one halves the resolution."""
    blocks: int = 1
    """Residual blocks per level."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Empty: it is not known how often a class was seen."""
        return ()

    @property
    def null_class(self) -> bool:
        """False: every image has a class."""
        return False

    @property
    def label_draw(self) -> LabelDraw:
        """The draw of labels where none are asked for: every class equally often."""
        return LabelDraw.balanced(self.classes, ())

    @property
    def noise(self) -> NoiseLevels:
        """The noise levels that it was trained at."""
        return NoiseLevels(t_min=self.t_min, t_max=self.t_max)


class NoiseClassifier(nn.Module):
    """Maps noisy images (b, c, h, w) and their noise levels (b,) to logits (b, classes)."""

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        halvings = 2 ** (spec.levels - 1)
        if any(side % halvings for side in spec.shape[1:]):
            raise UserError(f"Images of {spec.shape[1:]} pixels cannot be halved {spec.levels - 1} times.")
        self.spec, self.column = spec, EDM()
        base = spec.channels
        settings = ADM(channels=base, norm_groups=min(8, base), blocks=spec.blocks)
        family = family_of(settings)
        self.time_features = SinusoidalFeatures(base, sine_first=False)
        self.time_embed = nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, 4 * base))
        self.first = nn.Conv2d(spec.shape[0], base, 3, padding=1)
        blocks, width = [], base
        for level in range(spec.levels):
            if level:
                blocks.append(ResidualBlock(width, width, settings, family, "down"))
            for _ in range(spec.blocks):
                blocks.append(ResidualBlock(width, base * min(2**level, 4), settings, family))
                width = base * min(2**level, 4)
        self.blocks = nn.ModuleList(blocks)
        self.norm = GroupNorm(settings.norm_groups, width, family.eps)
        self.last = nn.Linear(width, spec.classes)

    def forward(self, x_t: Images, t: Times) -> Tensor:
        """Return the logits (b, classes)."""
        embedding = self.time_embed(self.time_features(self.column.network_time(t)))
        h = self.first(per_sample(self.column.c_in(t), x_t) * x_t)
        for block in self.blocks:
            h = block(h, embedding)
        logits: Tensor = self.last(self.norm(h, silu=True).mean((2, 3)))
        return logits

    def slope(self, x_t: Images, t: Times, labels: Labels) -> Images:
        """Return the gradient of ln p(y | x_t) in x_t (b, c, h, w); see `cm_ray.core.guidance`."""
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            chosen = functional.log_softmax(self(x, t), 1).gather(1, labels[:, None]).sum()
            (slope,) = torch.autograd.grad(chosen, x)
        return slope


def save_classifier(folder: Path, classifier: NoiseClassifier) -> None:
    """Write classifier.json and weights.safetensors into a new folder, aside and renamed."""
    with folder_written_aside(folder) as aside:
        weights = classifier.state_dict()
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, aside / WEIGHTS)
        (aside / SPEC).write_text(json.dumps(to_dict(classifier.spec), indent=2) + "\n")


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> NoiseClassifier:
    """Return the classifier in a folder, in eval mode. Raises UserError when it is missing or damaged."""
    if not (folder / SPEC).is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds no classifier; make one with cm-ray classifier.")
    try:
        classifier = NoiseClassifier(from_dict(ClassifierSpec, read_json(folder / SPEC, dict)))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / SPEC} is damaged; make the classifier again.") from error
    load_weights(classifier, read_safetensors(folder / WEIGHTS)[0], folder)
    return classifier.to(open_device(device)).eval().requires_grad_(False)
