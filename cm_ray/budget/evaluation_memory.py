"""Memory that the scores of a training need, counted on tensors without storage."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cm_ray.metrics.extractors import dinov2
from cm_ray.metrics.extractors.cifar_resnet import CifarResNet, CifarResNetExtractor
from cm_ray.metrics.extractors.digits_classifier import DigitsExtractor, build_network
from cm_ray.metrics.extractors.inception import InceptionExtractor
from cm_ray.metrics.extractors.inception_network import SIZE, FIDInception
from cm_ray.metrics.extractors.resizing import pillow_bicubic, tensorflow_bilinear
from cm_ray.metrics.extractors.scattering import ScatteringExtractor
from cm_ray.networks.counted_memory import CountedMemory, bytes_of, without_storage
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.sampling_memory import sampling_bytes
from cm_ray.recipes.recipe import Recipe


def extractor_bytes(config: Recipe) -> int:
    """Return the bytes of the weights of the extractor, which a worker holds during all of the training."""
    with torch.device("meta"):
        extractor = untrained_extractor(config.evaluation.extractor)
    return 0 if extractor is None else bytes_of(extractor.network)


def evaluation_bytes(config: Recipe, spec: ModelSpec, rows: int, device: str = "cpu") -> int:
    """Return the peak, in bytes beyond the state of a training, of a sample grid and scores.

    It has a copy of the model, and samples or their features in batches of those of a micro-batch, `rows`, or
    of `evaluation.batch_size`.
    """
    at_once = min(config.evaluation.batch_size, rows)
    samples = sampling_bytes(spec, at_once, config.precision, device)
    features = features_bytes(config.evaluation.extractor, spec.shape, at_once, device)
    with torch.device("meta"):
        return bytes_of(Model(spec)) + max(samples, features)


@lru_cache(maxsize=64)
def features_bytes(name: str, shape: tuple[int, int, int], rows: int, device: str) -> int:
    """Return the peak, in bytes beyond the weights, of the features of images (rows, c, h, w)."""
    with torch.device("meta"):
        extractor = untrained_extractor(name)
    if extractor is None:
        return 0
    for side in shape[1:]:  # these are kept, and must not be kept without their numbers
        tensorflow_bilinear(side, SIZE)
        pillow_bicubic(side, dinov2.SIZE)
    with FakeTensorMode(allow_non_fake_inputs=True), CountedMemory(device) as counted:
        without_storage(extractor.network)
        begun = counted.peak_from_now()
        extractor.features(torch.empty(rows, *shape, dtype=torch.uint8))
    return counted.most - begun


Untrained = (
    DigitsExtractor | ScatteringExtractor | CifarResNetExtractor | InceptionExtractor | dinov2.DINOv2Extractor
)


def untrained_extractor(name: str) -> Untrained | None:
    """Return an extractor with random weights, made where the default device is.

    clean-fid's network, a file of TorchScript, is taken for the Inception whose weights it has. None for an
    extractor of one's own, of which nothing is known, and without scores.
    """
    if name == "digits":
        return DigitsExtractor(build_network().eval().requires_grad_(False), "")
    if name in ("cifar-resnet20", "cifar-resnet56"):
        network = CifarResNet(int(name.removeprefix("cifar-resnet")))
        return CifarResNetExtractor(network.eval().requires_grad_(False), "", name)
    if (dino := name.removeprefix("dinov2-")) in dinov2.SHAPES:
        transformer = dinov2.VisionTransformer(dinov2.SHAPES[dino])
        return dinov2.DINOv2Extractor(transformer.eval().requires_grad_(False), "", name)
    if name == "scattering":
        return ScatteringExtractor.open()
    if name in ("inception-2015", "random-inception", "clean-fid"):
        return InceptionExtractor(FIDInception().eval().requires_grad_(False), "", name)
    return None
