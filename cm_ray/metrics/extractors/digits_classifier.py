"""The extractor `digits`: a small classifier of 8x8 grey digits, trained within seconds on first use.

Training runs in float64 on random numbers that are functions of a seed. At the end the weights are rounded to
a grid that is much coarser than the rounding errors of training, so that all processors, thread counts and
versions of PyTorch get the same bits, and scores from different machines have the same key. Data:
scikit-learn's copy of the UCI optical digits (Alpaydin & Kaynak 1998), 1,797 images.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from cm_ray.core.noise import Purpose, uniform
from cm_ray.errors import UserError
from cm_ray.extras import needs
from cm_ray.metrics.extractors.inference import check_images
from cm_ray.storage.files import cache_root, written_aside
from cm_ray.storage.tensor_files import read_safetensors

_SEED, _STEPS, _BATCH, _RATE, _DECAY, _SMOOTHING = 0, 400, 64, 3e-3, 1e-2, 0.1
_CHANNELS, _DIM, _CLASSES, _GAIN = (16, 32, 64), 64, 10, 2.25
_GRID = 2.0**-16  # weights are rounded to multiples of this; before that, machines differ by 1e-14
_RECIPE = (1, _SEED, _STEPS, _BATCH, _RATE, _DECAY, _SMOOTHING, _CHANNELS, _DIM, _CLASSES, _GAIN, _GRID)


@dataclass(frozen=True, slots=True)
class DigitsExtractor:
    """Extractor of features (b, 64) from the last hidden layer. It is an `Extractor` and a `Classifier`."""

    network: nn.Sequential
    weights_sha256: str
    name: str = "digits"
    dim: int = _DIM
    preprocess: str = "8x8 grey uint8 / 127.5 - 1, float64"
    class_names: tuple[str, ...] = tuple(map(str, range(_CLASSES)))

    @classmethod
    def open(cls, device: torch.device | str = "cpu") -> DigitsExtractor:
        """Return the extractor from the cache; on first use, train it and cache it (seconds on one core).

        Several processes may do this at once: each writes the same content to a temporary file and renames
        it.
        """
        weights = _cached_weights()
        network = build_network()
        network.load_state_dict({name: tensor.double() for name, tensor in weights.items()})
        return cls(network.to(device).eval().requires_grad_(False), digest(weights))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, 64), float64, of uint8 images (b, 1, 8, 8).

        In float64 the batch and the device change the features by 1e-15 only. Raises UserError on images of
        another shape or type.
        """
        return self.network[:-1](self._prepared(images))

    @torch.no_grad()
    def logits_of(self, features: Tensor) -> Tensor:
        """Return the logits (b, 10) of features (b, 64)."""
        return self.network[-1](features.to(next(self.network.parameters())))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the predicted digits (b,), int64, of uint8 images (b, 1, 8, 8)."""
        return self.network(self._prepared(images)).argmax(1)

    def _prepared(self, images: Tensor) -> Tensor:
        check_images(images, self.name, channels=(1,), size=(8, 8))
        return scaled(images.to(next(self.network.parameters()).device))


def load_digits_images() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits: uint8 images (1797, 1, 8, 8), 0..255, and int64 labels (1797,)."""
    needs("sklearn", extra="train")
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = torch.from_numpy(digits.images)
    return (levels * 255 / 16).round().to(torch.uint8)[:, None], torch.from_numpy(digits.target).long()


def build_network() -> nn.Sequential:
    """Return the classifier in float64, from images in [-1, 1] to logits.

    Its activations are smooth, since kinks would amplify rounding errors.
    """
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):  # building layers draws random weights
        before = 1
        for channels in _CHANNELS:
            layers += [nn.Conv2d(before, channels, 3, padding=1, stride=1 if before == 1 else 2), nn.SiLU()]
            before = channels
        layers += [nn.Flatten(), nn.Linear(4 * before, _DIM), nn.SiLU(), nn.Linear(_DIM, _CLASSES)]
    return nn.Sequential(*layers).double()


def scaled(images: Tensor) -> Tensor:
    """Map uint8 images to float64 in [-1, 1]."""
    return images.double() / 127.5 - 1


def train_classifier(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Train on uint8 images (n, 1, 8, 8) and labels (n,); return the rounded weights in float32.

    Training is deterministic and does not change PyTorch's random state.
    """
    with torch.inference_mode(False), torch.enable_grad():
        network, x, y = build_network(), scaled(images), labels.clone()
        _initialise(network)
        optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
        epoch_steps = len(x) // _BATCH
        for step in range(_STEPS):
            epoch, place = divmod(step, epoch_steps)
            if place == 0:
                draws = uniform(_SEED, epoch, torch.arange(len(x)), Purpose.TIMES)
                order = draws.argsort(stable=True)
            batch = order[place * _BATCH : (place + 1) * _BATCH]
            optimizer.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
            loss = F.cross_entropy(network(x[batch]), y[batch], label_smoothing=_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    weights = network.state_dict()
    return {name: ((value / _GRID).round() * _GRID).float() for name, value in weights.items()}


def digest(weights: dict[str, Tensor]) -> str:
    """Return the SHA-256, in hex, of the names, shapes and little-endian float32 values, sorted by name."""
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(f"{name}{tuple(weights[name].shape)}".encode())
        content.update(weights[name].numpy().astype("<f4").tobytes())
    return content.hexdigest()


def _initialise(network: nn.Sequential) -> None:
    """Draw weights uniformly in ±_GAIN / sqrt(fan-in) (after He et al. 2015); set biases to zero."""
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            if parameter.ndim == 1:
                parameter.zero_()
                continue
            rows = torch.arange(len(parameter))
            draws = uniform(_SEED, index, rows, Purpose.NOISE, parameter.shape[1:])
            parameter.copy_((2 * draws.double() - 1) * _GAIN / parameter[0].numel() ** 0.5)


def _cached_weights() -> dict[str, Tensor]:
    path = _cache_file()
    if path.is_file():
        try:
            return read_safetensors(path)[0]
        except UserError:  # train again when the cached file is damaged
            pass
    weights = train_classifier(*load_digits_images())
    with written_aside(path) as aside:
        save_file(weights, aside)
    return weights


def _cache_file() -> Path:
    recipe = hashlib.sha256(json.dumps(_RECIPE).encode()).hexdigest()
    return cache_root() / "extractors" / f"digits-{recipe[:16]}.safetensors"
