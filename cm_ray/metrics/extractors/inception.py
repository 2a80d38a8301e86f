"""The extractors `inception-2015`, with the published weights, and `random-inception`, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cm_ray.metrics.extractors.digits_classifier import digest
from cm_ray.metrics.extractors.inception_network import DIM, SIZE, FIDInception, build_inception
from cm_ray.metrics.extractors.inference import check_images, plain_float32
from cm_ray.metrics.extractors.published_weights import INCEPTION_2015
from cm_ray.metrics.extractors.resizing import RESIZINGS, check_resizing, resized

_BATCH = 64  # images per forward pass: activations of 299x299 images are large


@dataclass(frozen=True, slots=True)
class InceptionExtractor:
    """Extractor of features (b, 2048) of the FID Inception. It is an `Extractor` and a `Classifier`.

    With the published weights, the resizing `legacy_tensorflow` and 50,000 samples, the Fréchet distance of
    these features is the FID of Heusel et al. 2017.
    """

    network: FIDInception
    weights_sha256: str
    name: str
    resizing: str = "legacy_tensorflow"
    dim: int = field(default=DIM, init=False)

    @classmethod
    def open(
        cls,
        device: torch.device | str = "cpu",
        *,
        resizing: str = "legacy_tensorflow",
        weights: Path | str = "",
    ) -> InceptionExtractor:
        """Return `inception-2015` with the published weights; see `PublishedWeights.find`.

        Raises UserError when the weights are missing or have another SHA-256, and on an unknown resizing.
        """
        check_resizing(resizing)
        network = build_inception()
        _zero_counters(network)
        network.load_state_dict(INCEPTION_2015.load(weights))
        return cls(network.to(device), INCEPTION_2015.sha256, "inception-2015", resizing)

    @classmethod
    def random(
        cls,
        device: torch.device | str = "cpu",
        *,
        resizing: str = "legacy_tensorflow",
        seed: int = 0,
    ) -> InceptionExtractor:
        """Return `random-inception`, with weights drawn from `seed`.

        It is for tests; its scores mean nothing.
        """
        check_resizing(resizing)
        network = build_inception()
        _draw_weights(network, seed)
        sha256 = digest(network.state_dict())
        return cls(network.to(device), sha256, "random-inception", resizing)

    @property
    def preprocess(self) -> str:
        """The resizing and scaling of images."""
        return f"{self.resizing}: {RESIZINGS[self.resizing]}, (uint8 - 128) / 128"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, 2048), float32, of uint8 images (b, 3 or 1, h, w), colour or grey.

        Raises UserError on images of another shape or type.
        """
        check_images(images, self.name, channels=(1, 3))
        batches = [self._features_of(batch) for batch in images.split(_BATCH)]
        return torch.cat(batches) if batches else torch.zeros(0, DIM)

    @torch.no_grad()
    def logits_of(self, features: Tensor) -> Tensor:
        """Return the logits (b, 1008) of features (b, 2048), without the bias.

        The code that published Inception scores come from (Salimans et al. 2016) leaves the bias out as well.
        """
        weight = self.network.fc.weight
        with plain_float32(weight):
            return features.to(weight) @ weight.T

    def _features_of(self, images: Tensor) -> Tensor:
        device = self.network.fc.weight.device
        with plain_float32(self.network.fc.weight):
            x = resized(images.to(device), SIZE, self.resizing)
            return self.network((x.expand(-1, 3, -1, -1) - 128) / 128)


def _zero_counters(network: FIDInception) -> None:
    """Zero the batch counters of the normalisation layers, which published files may leave out."""
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()


def _draw_weights(network: FIDInception, seed: int) -> None:
    """Draw weights uniformly, as He et al. 2015, the same bits on all machines; normalisations do nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim > 1:
            limit = (6 / tensor[0].numel()) ** 0.5
            tensor.copy_((2 * torch.rand(tensor.shape, generator=generator) - 1) * limit)
        else:
            tensor.fill_(1 if name.endswith(("bn.weight", "running_var")) else 0)
