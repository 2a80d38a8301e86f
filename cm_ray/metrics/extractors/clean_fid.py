"""The extractor `clean-fid`: features by the code of Parmar et al. 2022, to check `inception-2015` by."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

# These two of clean-fid's modules do without torchvision, which is not importable everywhere as it is.
from cleanfid.inception_torchscript import InceptionV3W  # type: ignore[import-untyped]
from cleanfid.resize import build_resizer  # type: ignore[import-untyped]
from torch import Tensor, nn

from cm_ray.errors import UserError, closest
from cm_ray.metrics.extractors.inference import check_images, plain_float32
from cm_ray.metrics.extractors.published_weights import TORCHSCRIPT_INCEPTION
from cm_ray.metrics.extractors.resizing import RESIZINGS

DIM = 2048
_BATCH = 64  # images at once: activations of 299x299 images are large


@dataclass(frozen=True, slots=True)
class CleanFIDExtractor:
    """Features (b, 2048) by clean-fid's own resizing and its own network. See `Extractor`.

    It shares with `inception-2015` neither the resizing nor the network nor the file of weights, and should
    agree with it to rounding. It is there to check that, and slower, as it resizes image by image on the CPU.
    So that one thing has one name, a Fréchet distance by it is never called FID, but `FD-clean-fid-<n>`,
    whatever n (see `Score.is_fid`).

    With `legacy_tensorflow` the network resizes, as clean-fid has it do; with `clean`, Pillow. It is no
    `Classifier`: clean-fid asks the network for features only.
    """

    network: nn.Module
    """clean-fid's wrapper of the TorchScript network, in the state that fits `resizing`."""
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
        """Return `clean-fid` with the published TorchScript file, see `PublishedWeights.find`.

        The file holds code, and is loaded only once its SHA-256 is found to be the published one. Raises
        UserError when it is not to be had or is another one, and on an unknown resizing.
        """
        if resizing not in RESIZINGS:
            raise UserError(f"There is no resizing {resizing!r}: {closest(resizing, list(RESIZINGS))}")
        file = TORCHSCRIPT_INCEPTION.find(weights)
        network = _wrapped(file, resize_inside=resizing == "legacy_tensorflow")
        return cls(network.to(device).eval(), TORCHSCRIPT_INCEPTION.sha256, resizing, device)

    @property
    def preprocess(self) -> str:
        """The resizing and the scaling that images go through, and the version of clean-fid that does it."""
        by = f"clean-fid {version('clean-fid')}"
        return f"{self.resizing}: {RESIZINGS[self.resizing]}, (uint8 - 128) / 128, by {by}"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, 2048), float32, of uint8 images (b, 3 or 1, h, w); grey is repeated.

        Computed in whole float32, also on a GPU, where clean-fid itself leaves that to the surroundings.
        Raises UserError on other images.
        """
        check_images(images, self.name, channels=(1, 3))
        if not len(images):
            return torch.zeros(0, DIM, device=self.device)
        return torch.cat([self._features_of(part) for part in images.split(_BATCH)])

    def _features_of(self, images: Tensor) -> Tensor:
        resize = build_resizer(self.resizing)
        pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        resized = torch.from_numpy(np.stack([resize(image) for image in pixels]))
        x = resized.permute(0, 3, 1, 2).contiguous().to(self.device, torch.float32)
        with plain_float32(x):
            return self.network(x)


def _wrapped(file: Path, *, resize_inside: bool) -> nn.Module:
    """Return clean-fid's wrapper of `file`, which may have any name.

    The wrapper is told a folder and takes the file of the published name in it, which could be another file
    than the one that was checked: so it gets a folder of its own, with a link to that one.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, TORCHSCRIPT_INCEPTION.file_name).symlink_to(file.resolve())
        return InceptionV3W(folder, download=False, resize_inside=resize_inside)
