"""A model: network and preconditioning together, to and from a folder of two plain files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.noise import Purpose, normal
from cm_ray.core.types import Images, Labels, Times
from cm_ray.data.interface.reading import Reading
from cm_ray.errors import UserError
from cm_ray.networks.architectures import EDM2, GroupNormUNet, Network
from cm_ray.networks.arithmetic import Precision, arithmetic
from cm_ray.networks.custom import Custom
from cm_ray.networks.edm2 import EDM2UNet
from cm_ray.networks.has_classes import Classifies, HasClasses
from cm_ray.networks.preconditioned import Preconditioned
from cm_ray.networks.score_networks import RefineNet
from cm_ray.networks.unet import UNet
from cm_ray.networks.weight_names import differences
from cm_ray.sampling.finite import finite
from cm_ray.sampling.labels import LabelDraw
from cm_ray.sampling.multistep import TimePoints
from cm_ray.sampling.samplers import OneStep, Sampler
from cm_ray.sampling.sampling_steps import Step
from cm_ray.sampling.text import parse, text_of
from cm_ray.settings.tree import choice_from_dict, from_dict, to_dict
from cm_ray.storage.files import folder_written_aside, write_files

WEIGHTS, SPEC = "weights.safetensors", "model.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """All that is needed to build the network again and to sample from it."""

    network: Network
    diffusion: Diffusion
    shape: tuple[int, int, int]
    """(c, h, w) of the images."""
    class_names: tuple[str, ...] = ()
    """Names of the classes of the data."""
    class_counts: tuple[int, ...] = ()
    """Number of images of each class that the model was trained on; empty where it is not known."""
    time_points: TimePoints = ()
    """Time points for multistep sampling, for each NFE that they are known for."""
    sampler: Sampler = field(default_factory=OneStep)
    """The sampler that the model is made for."""
    reading: Reading = field(default_factory=Reading)
    """The reading of the image files that it was trained on, by which those that it edits are read."""
    ema_length: float = 0.0
    """sigma_rel of the power-function average that the weights are; 0 if they are no such average."""
    initial_share: float = 0.0
    """Share, in an average, of the weights that its training began with."""
    augment: int = 0
    """Numbers that describe the augmentation of a training image, which the U-Net takes; 0: it takes none."""

    def __post_init__(self) -> None:
        """Raise ValueError when the counts of the classes do not fit their names."""
        counts = self.class_counts
        if counts and (len(counts) != len(self.class_names) or min(counts) < 0 or not any(counts)):
            raise ValueError(f"counts {counts} of the classes {self.class_names}")

    @property
    def unet(self) -> GroupNormUNet:
        """The settings of adm, ddpm++ or ncsn++. Raises UserError when the network is another one."""
        if not isinstance(self.network, GroupNormUNet):
            raise UserError(
                f"The model's network is {self.network.family}; this format is for adm, ddpm++ and ncsn++."
            )
        return self.network

    @property
    def classes(self) -> int:
        """Classes that the network is conditioned on; 0 if it is unconditional."""
        return len(self.class_names) if self.network.conditional else 0

    @property
    def null_class(self) -> bool:
        """True if the network has learned to do without a class: the label -1."""
        return self.classes > 0 and self.network.label_dropout > 0

    @property
    def label_draw(self) -> LabelDraw | None:
        """The draw of labels where none are asked for: every class that occurs equally often.

        None for an unconditional model.
        """
        return LabelDraw.balanced(self.classes, self.class_counts) if self.classes else None


def build_network(spec: ModelSpec) -> nn.Module:
    """Return the network of a specification, with new weights.

    Raises UserError when its settings do not fit the images, or a network of one's own cannot be imported, or
    was not named.
    """
    if isinstance(spec.network, Custom | RefineNet):
        return spec.network.build(spec.shape, spec.classes)
    if isinstance(spec.network, EDM2):
        return EDM2UNet(spec.network, spec.shape, spec.classes, **_added_inputs(spec))
    return unet_of(spec)


def unet_of(spec: ModelSpec) -> UNet:
    """Return the U-Net of a specification, with new weights. Raises UserError as `build_network` does."""
    return UNet(spec.unet, spec.shape, spec.classes, augment=spec.augment, **_added_inputs(spec))


def _added_inputs(spec: ModelSpec) -> dict[str, bool]:
    """Return which inputs a U-Net has that not every one has."""
    return {"two_times": spec.diffusion.two_times, "takes_scale": bool(spec.diffusion.guidance)}


class Model(Preconditioned):
    """Noisy images and their times to clean images: a consistency function, a denoiser, or of two times."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(build_network(spec), spec.diffusion)
        self.spec = spec
        self.precision: Precision = "float32"
        self.weak: Model | None = None
        """The weaker model of samplers with autoguidance; see `cm_ray.drawing.autoguidance`."""
        self.classifier: Classifies | None = None
        """The classifier of samplers with a class scale; see `cm_ray.drawing.autoguidance`."""
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x_t: Images,
        t: Times,
        labels: Labels | None = None,
        s: Times | None = None,
        scale: Times | None = None,
        augment: Tensor | None = None,
    ) -> Images:
        """Return the clean images (b, c, h, w), not clipped; see `Preconditioned.forward`."""
        with arithmetic(self.precision, x_t.device):
            return super().forward(x_t, t, labels, s, scale, augment)

    @contextlib.contextmanager
    def computing_in(self, precision: Precision) -> Iterator[None]:
        """Compute in another precision inside of this context."""
        before, self.precision = self.precision, precision
        try:
            with self.weak.computing_in(precision) if self.weak else contextlib.nullcontext():
                yield
        finally:
            self.precision = before

    def guided(self, sampler: Sampler) -> Callable[..., Images]:
        """Return the model with the guidance of a sampler, to be called like the model.

        With a classifier, a model without classes is called with labels, too. Raises UserError when the
        sampler needs a weaker model or a classifier, and there is none.
        """
        f: Callable[..., Images] = self
        if sampler.class_scale and not self.spec.classes:
            f = lambda x_t, t, *_: self(x_t, t)  # noqa: E731
        slope = self.classifier.slope if sampler.classifier and self.classifier else None
        guided: Callable[..., Images] = sampler.guiding(f, self._weaker if sampler.weak else None, slope)
        return guided

    def asked_by(self, sampler: Sampler) -> HasClasses:
        """Return what has the classes that can be asked for: the specification, or that of a classifier."""
        by_classifier = sampler.class_scale and self.classifier and not self.spec.classes
        return self.classifier.spec if by_classifier and self.classifier else self.spec

    @property
    def _weaker(self) -> Callable[..., Images] | None:
        """The weaker model, which gets no labels if it has no classes."""
        if (weak := self.weak) is None or weak.spec.classes:
            return weak
        return lambda x_t, t, *_: weak(x_t, t)

    @torch.no_grad()
    def sampling_steps(
        self, indices: Tensor, *, seed: int, sampler: Sampler, labels: Labels | None = None
    ) -> Iterator[Step]:
        """Yield the steps of generating the samples with these indices; see `sample`."""
        self.eval()
        if labels is None:
            labels = self.sample_labels(indices, seed)
        given = () if labels is None else (labels,)
        f = self.guided(sampler)
        yield from sampler.trajectory(
            lambda x_t, t, s=None: f(x_t, t, *given) if s is None else f(x_t, t, labels, s),
            lambda draw: normal(seed, draw, indices, Purpose.SAMPLE, self.spec.shape),
            self.spec.diffusion,
        )

    def sample(self, indices: Tensor, *, seed: int, sampler: Sampler, labels: Labels | None = None) -> Images:
        """Generate the samples with these indices, in [-1, 1] up to the noise of t_min (b, c, h, w).

        Sample i of a seed is the same in whatever batch it is made, with the same labels. labels: by
        default `sample_labels`, drawn with the seed, for a conditional model.
        Puts the model in eval mode and leaves it there.
        """
        *_, last = self.sampling_steps(indices, seed=seed, sampler=sampler, labels=labels)
        return last.x

    def sample_labels(self, indices: Tensor, seed: int) -> Labels | None:
        """Draw the labels of these samples (b,), by `ModelSpec.label_draw`; None if unconditional."""
        draw = self.spec.label_draw
        return None if draw is None else draw.labels(indices, seed)


def to_uint8(images: Images) -> Tensor:
    """Map images in [-1, 1] to uint8 of the same shape, rounding to the nearest level.

    Raises UserError when a pixel is not finite.
    """
    return ((finite(images).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Images:
    """Map uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def save_model(
    folder: Path, spec: ModelSpec, weights: dict[str, Tensor], also: Mapping[str, bytes] = {}
) -> None:
    """Write model.json and weights.safetensors into a new `folder`, aside and renamed.

    also: content of more files by their names.
    """
    with folder_written_aside(folder) as aside:
        write_files(aside, also)
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, aside / WEIGHTS)
        (aside / SPEC).write_text(json.dumps(spec_to_dict(spec), indent=2) + "\n")


def build_model(
    spec: ModelSpec, weights: dict[str, Tensor], source: Path | str, device: torch.device | str = "cpu"
) -> Model:
    """Return a model in eval mode. Raises UserError, naming the source, when the weights are another's."""
    model = Model(spec)
    load_weights(model.network, weights, source)
    return model.to(open_device(device)).eval()


def open_device(name: torch.device | str) -> torch.device:
    """Return a device; "auto" is a GPU if there is one. Raises UserError when it does not exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"There is no device {str(name)!r} here; take cpu.") from error
    return device


def load_weights(network: nn.Module, weights: dict[str, Tensor], source: Path | str) -> None:
    """Fill a network. Raises UserError, naming the first differences, when they are another network's."""
    if found := differences(network.state_dict(), weights):
        raise UserError(
            f"{source} belongs to another network: {found}; use the settings that it was trained with."
        )
    network.load_state_dict(weights)


def spec_to_dict(spec: ModelSpec) -> dict[str, Any]:
    """Return a spec as JSON values, its sampler as text."""
    return to_dict(spec) | {"sampler": text_of(spec.sampler)}


def spec_from_dict(values: dict[str, Any], file: str = "") -> ModelSpec:
    """Return the spec that `spec_to_dict` made; from other values, raises whatever they lead to.

    file: where the values were read; see `from_dict`.
    """
    c, h, w = values["shape"]
    diffusion = from_dict(Diffusion, values["diffusion"])
    time_points = tuple(tuple(points) for points in values["time_points"])
    return ModelSpec(
        network=choice_from_dict(Network, values["network"], file),
        diffusion=diffusion,
        shape=(c, h, w),
        class_names=tuple(values["class_names"]),
        class_counts=tuple(values.get("class_counts", ())),
        time_points=time_points,
        sampler=parse(values["sampler"], diffusion, time_points=time_points),
        reading=from_dict(Reading, values.get("reading", {})),
        ema_length=float(values.get("ema_length", 0.0)),
        initial_share=float(values.get("initial_share", 0.0)),
        augment=int(values.get("augment", 0)),
    )
