"""Training of a noise-conditional classifier: a short loop on images in memory, of one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cm_ray.core.noise import Purpose, derived_seed, normal, uniform
from cm_ray.core.noise_times import LogUniform
from cm_ray.core.pairs import perturb
from cm_ray.errors import require
from cm_ray.networks.model import from_uint8, open_device
from cm_ray.networks.noise_classifier import ClassifierSpec, NoiseClassifier

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierTraining:
    """The settings of a training; by default those of the 8x8 digits, a minute or two on two CPU cores."""

    steps: int = 1000
    """Training steps."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 2e-3
    """Step size of AdamW, which falls to zero linearly."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    seed: int = 0
    """Seed of weights, batches, times and noise."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        for name in ("steps", "batch_size"):
            require(getattr(self, name) >= 1, name, f"must be at least 1, not {getattr(self, name)}")
        require(self.learning_rate > 0, "learning_rate", f"must be positive, not {self.learning_rate}")
        require(self.weight_decay >= 0, "weight_decay", f"must not be negative, but is {self.weight_decay}")
        require(self.seed >= 0, "seed", f"must not be negative, but is {self.seed}")


def train_noise_classifier(
    spec: ClassifierSpec,
    images: Tensor,
    labels: Tensor,
    settings: ClassifierTraining,
    *,
    device: torch.device | str = "auto",
    say: Say | None = None,
) -> NoiseClassifier:
    """Return a classifier of uint8 images (n, c, h, w) and labels (n,), trained by its cross-entropy.

    ln t is uniform between the noise levels. Random numbers are a function of seed, step and position. say:
    gets a sentence ten times.
    """
    place = open_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "classifier"))
        classifier = NoiseClassifier(spec).to(place).train()
    optimizer = torch.optim.AdamW(
        classifier.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    positions, times = torch.arange(settings.batch_size, device=place), LogUniform()
    for step in range(settings.steps):
        first, second = uniform(settings.seed, step, positions, Purpose.TIMES, (2,)).unbind(1)
        chosen = (first.double() * len(images)).long().clamp(max=len(images) - 1).cpu()
        x, y = from_uint8(images[chosen].to(place)), labels[chosen].to(place)
        t, _ = times(second, step, settings.steps, spec.noise)
        noise = normal(settings.seed, step, positions, Purpose.NOISE, spec.shape)
        loss = functional.cross_entropy(classifier(perturb(x, noise, t), t), y)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - step / settings.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if say and (step + 1) % max(1, settings.steps // 10) == 0:
            say(f"step {step + 1}/{settings.steps}  loss {float(loss.detach()):.4g}")
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(
    classifier: NoiseClassifier, images: Tensor, labels: Tensor, t: float, *, seed: int = 0
) -> float:
    """Return the share of uint8 images (n, c, h, w) that are classified rightly at a noise level."""
    place, right = next(classifier.parameters()).device, 0
    for rows in torch.arange(len(images)).split(512):
        x = from_uint8(images[rows].to(place))
        noise = normal(seed, 0, rows.to(place), Purpose.NOISE, classifier.spec.shape)
        times = x.new_full((len(rows),), t)
        right += int((classifier(perturb(x, noise, times), times).argmax(1).cpu() == labels[rows]).sum())
    return right / len(images)
