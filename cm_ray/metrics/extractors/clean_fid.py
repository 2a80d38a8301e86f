"""The extractor `clean-fid`: features by that package (Parmar et al. 2022), to verify `inception-2015`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

# These two modules of clean-fid do not import torchvision, which fails beside a CPU build of PyTorch.
from cleanfid.inception_torchscript import InceptionV3W  # type: ignore[import-untyped]
from cleanfid.resize import build_resizer  # type: ignore[import-untyped]
from torch import Tensor, nn

from cm_ray.metrics.extractors.inference import check_images, plain_float32
from cm_ray.metrics.extractors.published_weights import TORCHSCRIPT_INCEPTION
from cm_ray.metrics.extractors.resizing import RESIZINGS, check_resizing
from cm_ray.storage.tensor_files import check_finite

DIM = 2048
_BATCH = 64  # images per forward pass: activations of 299x299 images are large


@dataclass(frozen=True, slots=True)
class CleanFIDExtractor:
    """Extractor of features (b, 2048) by clean-fid's own resizing and network. It is an `Extractor`.

    It shares neither the resizing nor the network nor the file of weights with `inception-2015`, and agrees
    with it up to rounding; it exists to verify that. It is slower, since it resizes one image at a time on
    the CPU. A Fréchet distance by this extractor is always named `FD-clean-fid-<n>`, never FID (see
    `Score.is_fid`).

    With `legacy_tensorflow` the network does the resizing, as in clean-fid; with `clean`, Pillow does. It is
    not a `Classifier`, because clean-fid's network returns features only.
    """

    network: nn.Module
    """clean-fid's wrapper of the TorchScript network, set up for `resizing`."""
    weights_sha256: str
    resizing: str = "legacy_tensorflow"
    device: torch.device | str = "cpu"
    name: str = field(default="clean-fid", init=False)
    dim: int = field(default=DIM, init=False)

    @classmethod
    def open(
        cls,
        device: torch.device | str = "cpu",
        *,
        resizing: str = "legacy_tensorflow",
        weights: Path | str = "",
    ) -> CleanFIDExtractor:
        """Return `clean-fid` with the published TorchScript file; see `PublishedWeights.find`.

        The file contains code, so it is loaded only after its SHA-256 was checked. Raises UserError when the
        file is missing or another one, and on an unknown resizing.
        """
        check_resizing(resizing)
        file = TORCHSCRIPT_INCEPTION.find(weights)
        network = _wrapped(file, resize_inside=resizing == "legacy_tensorflow")
        check_finite(network.state_dict(), file)
        return cls(network.to(device).eval(), TORCHSCRIPT_INCEPTION.sha256, resizing, device)

    @property
    def preprocess(self) -> str:
        """The resizing and scaling of images, and the version of clean-fid that does them."""
        by = f"clean-fid {version('clean-fid')}"
        return f"{self.resizing}: {RESIZINGS[self.resizing]}, (uint8 - 128) / 128, by {by}"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, 2048), float32, of uint8 images (b, 3 or 1, h, w), colour or grey.

        Computes in full float32, also on a GPU, where clean-fid itself depends on global settings of PyTorch.
        Raises UserError on images of another shape or type.
        """
        check_images(images, self.name, channels=(1, 3))
        if not len(images):
            return torch.zeros(0, DIM, device=self.device)
        return torch.cat([self._features_of(batch) for batch in images.split(_BATCH)])

    def _features_of(self, images: Tensor) -> Tensor:
        resize = build_resizer(self.resizing)
        pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        resized = torch.from_numpy(np.stack([resize(image) for image in pixels]))
        x = resized.permute(0, 3, 1, 2).contiguous().to(self.device, torch.float32)
        with plain_float32(x):
            return self.network(x)


def _wrapped(file: Path, *, resize_inside: bool) -> nn.Module:
    """Return clean-fid's wrapper of `file`, which may have any name.

    The wrapper takes a folder and loads the file with the published name in it. A temporary folder that links
    to `file` makes sure that it loads the file whose SHA-256 was checked.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, TORCHSCRIPT_INCEPTION.file_name).symlink_to(file.resolve())
        return InceptionV3W(folder, download=False, resize_inside=resize_inside)
