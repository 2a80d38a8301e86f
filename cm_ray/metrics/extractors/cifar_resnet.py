"""The extractors `cifar-resnet20` and `cifar-resnet56`: classifiers of CIFAR-10 (He et al. 2016, Sec. 4.2).

The weights are from github.com/akamaster/pytorch_resnet_cifar10 (Y. Idelbayev); their test accuracy is 91.73
% and 93.39 %. Their features describe CIFAR-10 better than those of Inception, at a thousandth of the cost. A
distance between them is not a FID and is not named FID.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm_ray.metrics.extractors.inference import IMAGENET_MEAN, IMAGENET_STD, check_images, plain_float32
from cm_ray.metrics.extractors.published_weights import CIFAR_RESNETS

_CHANNELS, _DIM, _CLASSES, _BATCH = (16, 32, 64), 64, 10, 512
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
"""Names of the predicted classes, in the numbering of CIFAR-10."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A: subsampling and zero padding)."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.beside = stride, (channels - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, channels, h / stride, w / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, self.beside, self.beside)))


class CifarResNet(nn.Module):
    """A ResNet with `depth` = 6n + 2 layers, from normalised images (b, 3, 32, 32) to features (b, 64)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0])
        before = _CHANNELS[0]
        for index, channels in enumerate(_CHANNELS, start=1):
            blocks = []
            for place in range((depth - 2) // 6):
                blocks.append(ResidualBlock(before, channels, 2 if place == 0 and index > 1 else 1))
                before = channels
            self.add_module(f"layer{index}", nn.Sequential(*blocks))
        self.linear = nn.Linear(_DIM, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (b, 64): the mean over the last feature map, before the classifier."""
        x = F.relu(self.bn1(self.conv1(x)))
        for index in range(1, len(_CHANNELS) + 1):
            x = self.get_submodule(f"layer{index}")(x)
        return x.mean((2, 3))


@dataclass(frozen=True, slots=True)
class CifarResNetExtractor:
    """Extractor of features (b, 64) from the pooled last layer. It is an `Extractor` and a `Classifier`."""

    network: CifarResNet
    weights_sha256: str
    name: str
    dim: int = field(default=_DIM, init=False)
    preprocess: str = field(default="32x32 RGB uint8 / 255, ImageNet mean and deviation", init=False)
    class_names: tuple[str, ...] = field(default=CLASS_NAMES, init=False)

    @classmethod
    def open(
        cls, depth: int, device: torch.device | str = "cpu", *, weights: Path | str = ""
    ) -> CifarResNetExtractor:
        """Return the extractor of `depth` 20 or 56 with the published weights.

        weights: the file, or the folder that holds it; empty searches $CM_RAY_WEIGHTS and the cache. See
        `PublishedWeights.find` for the search and its errors.
        """
        published = CIFAR_RESNETS[depth]
        network = CifarResNet(depth)
        network.load_state_dict(published.load(weights))
        network = network.to(device).eval().requires_grad_(False)
        return cls(network, published.sha256, f"cifar-resnet{depth}")

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, 64), float32, of uint8 images (b, 3, 32, 32).

        Raises UserError on images of another shape or type.
        """
        check_images(images, self.name, channels=(3,), size=(32, 32))
        batches = [self._features_of(batch) for batch in images.split(_BATCH)]
        return torch.cat(batches) if batches else torch.zeros(0, _DIM)

    @torch.no_grad()
    def logits_of(self, features: Tensor) -> Tensor:
        """Return the logits (b, 10) of features (b, 64)."""
        linear = self.network.linear
        with plain_float32(linear.weight):
            return linear(features.to(linear.weight))

    def predict(self, images: Tensor) -> Tensor:
        """Return the predicted classes (b,), int64, in the numbering of CIFAR-10."""
        return self.logits_of(self.features(images)).argmax(1)

    def _features_of(self, images: Tensor) -> Tensor:
        weight = self.network.linear.weight
        mean, std = (
            torch.tensor(each, device=weight.device).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD)
        )
        with plain_float32(weight):
            return self.network((images.to(weight.device).float() / 255 - mean) / std)
