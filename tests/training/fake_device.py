"""Fake tensors on a device type that PyTorch knows without having it, and engines there."""

import dataclasses

import torch

from cm_ray.metrics.extractors.cifar_resnet import CifarResNet, CifarResNetExtractor
from cm_ray.metrics.extractors.digits_classifier import DigitsExtractor, build_network
from cm_ray.metrics.extractors.inception import InceptionExtractor
from cm_ray.metrics.extractors.inception_network import FIDInception
from cm_ray.networks.model import Model
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine
from tests.training.engines import small, specification

DEVICE = torch.device("lazy", 0)
"""A device type that PyTorch knows without having it."""


def a_batch():
    return Batch(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))


def an_engine(*changes):
    config = small(*changes, steps=4)
    spec = specification(config)
    denoiser = dataclasses.replace(spec.diffusion, boundary="none")
    teacher = Model(dataclasses.replace(spec, diffusion=denoiser)) if config.method.needs_teacher else None
    return Engine(config, spec, device=DEVICE, teacher=teacher)


def extractor_of(name):
    """Return an extractor with fake weights, and the shape of its images (c, h, w)."""
    if name == "digits":
        return DigitsExtractor(build_network().to(DEVICE), ""), (1, 8, 8)
    if name == "cifar-resnet20":
        return CifarResNetExtractor(CifarResNet(20).eval().to(DEVICE), "", name), (3, 32, 32)
    return InceptionExtractor(FIDInception().eval().to(DEVICE), "", name), (3, 64, 64)
