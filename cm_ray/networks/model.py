"""A consistency model: network and preconditioning together, to and from a folder of two plain files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cm_ray.config import DiffusionConfig, NetworkConfig, from_dict, to_dict
from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.core.precondition import ConsistencyPrecondition
from cm_ray.core.samplers import multistep
from cm_ray.core.types import Images, Labels, Times
from cm_ray.errors import UserError
from cm_ray.files import folder_written_aside, read_json
from cm_ray.networks.unet import UNet

WEIGHTS, SPEC = "weights.safetensors", "model.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """All that is needed to build the network again and to sample from it."""

    network: NetworkConfig
    diffusion: DiffusionConfig
    shape: tuple[int, int, int]
    """(c, h, w) of the images."""
    class_names: tuple[str, ...] = ()
    """Names of the classes of the data."""
    taus: tuple[float, ...] = ()
    """Descending time points for multistep sampling; k steps take the first k - 1."""

    @property
    def classes(self) -> int:
        """Classes that the network is conditioned on; 0 if it is unconditional."""
        return len(self.class_names) if self.network.conditional else 0


class ConsistencyModel(nn.Module):
    """f_theta: noisy images and their times to clean images, in one evaluation."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.network = UNet(spec.network, spec.shape, spec.classes)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        diffusion = spec.diffusion
        self.precondition = ConsistencyPrecondition(
            diffusion.sigma_data, diffusion.t_min, diffusion.time_scale
        )

    def forward(self, x_t: Images, t: Times, labels: Labels | None = None) -> Images:
        """Return f(x_t, t) (b, c, h, w), float32, not clipped."""
        return self.precondition(lambda x, time: self.network(x, time, labels), x_t, t)

    @torch.no_grad()
    def sample(
        self, indices: Tensor, *, seed: int, taus: tuple[float, ...] = (), labels: Labels | None = None
    ) -> Images:
        """Generate the samples with these indices, in [-1, 1] (b, c, h, w).

        Sample i of a seed is the same in whatever batch it is made, with the same labels. taus: time
        points beyond t_max; none for one evaluation. labels: by default `sample_labels`, drawn with the
        seed, for a conditional model.
        Puts the model in eval mode and leaves it there.
        """
        self.eval()
        if labels is None:
            labels = self.sample_labels(indices, seed)
        diffusion = self.spec.diffusion
        *_, images = multistep(
            lambda x_t, t: self(x_t, t, labels),
            lambda step: normal(seed, step, indices, Purpose.SAMPLE, self.spec.shape),
            taus,
            t_min=diffusion.t_min,
            t_max=diffusion.t_max,
        )
        return images

    def sample_labels(self, indices: Tensor, seed: int) -> Labels | None:
        """Draw the labels of these samples, uniform over the classes (b,); None if unconditional."""
        if not self.spec.classes:
            return None
        draws = uniform(seed, 0, indices, Purpose.LABELS, (1,))[:, 0]
        return (draws.double() * self.spec.classes).long()


def to_uint8(images: Images) -> Tensor:
    """Map images in [-1, 1] to uint8 of the same shape, rounding to the nearest level."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Images:
    """Map uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def taus_for(spec: ModelSpec, steps: int) -> tuple[float, ...]:
    """Return the model's own time points for `steps` evaluations.

    Raises UserError when the model does not know that many.
    """
    if not 1 <= steps <= len(spec.taus) + 1:
        raise UserError(
            f"This model has time points for 1 to {len(spec.taus) + 1} steps, not for {steps}; "
            "give the time points by --taus."
        )
    return spec.taus[: steps - 1]


def save_model(folder: Path, spec: ModelSpec, weights: dict[str, Tensor]) -> None:
    """Write model.json and weights.safetensors into a new `folder`, aside and renamed."""
    with folder_written_aside(folder) as aside:
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, aside / WEIGHTS)
        (aside / SPEC).write_text(json.dumps(spec_to_dict(spec), indent=2) + "\n")


def load_model(folder: Path, device: torch.device | str = "cpu") -> ConsistencyModel:
    """Read what `save_model` wrote, in eval mode; device "auto" is a GPU if there is one.

    Raises UserError when it is not such a folder or there is no such device.
    """
    if not (folder / SPEC).is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds no model: {SPEC} and {WEIGHTS} are expected there.")
    model = ConsistencyModel(spec_from_dict(read_json(folder / SPEC)))
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is broken ({error}); restore it.") from error
    load_weights(model.network, weights, folder / WEIGHTS)
    return model.to(_device(device)).eval()


def _device(name: torch.device | str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"There is no device {str(name)!r} here; take cpu.") from error
    return device


def load_weights(network: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Fill a network. Raises UserError, naming the first difference, when they are another network's."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wanted != found:
        name = next(n for n in [*wanted, *found] if wanted.get(n) != found.get(n))
        raise UserError(
            f"{source} belongs to another network: {name} is {found.get(name, 'missing')} there and "
            f"{wanted.get(name, 'missing')} here; use the settings that it was trained with."
        )
    network.load_state_dict(weights)


def spec_to_dict(spec: ModelSpec) -> dict[str, Any]:
    """Return a spec as JSON values."""
    return to_dict(spec)


def spec_from_dict(values: dict[str, Any]) -> ModelSpec:
    """Return the spec that `spec_to_dict` made."""
    c, h, w = values["shape"]
    return ModelSpec(
        network=from_dict(NetworkConfig, values["network"]),
        diffusion=from_dict(DiffusionConfig, values["diffusion"]),
        shape=(c, h, w),
        class_names=tuple(values["class_names"]),
        taus=tuple(values["taus"]),
    )
