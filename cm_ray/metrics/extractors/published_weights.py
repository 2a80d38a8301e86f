"""Published weights of feature extractors: find or download the files and check their SHA-256."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.storage.files import cache_root, download, sha256_of
from cm_ray.storage.tensor_files import check_finite, read_tensor_file

_RESNETS = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """A file of weights at a public address."""

    url: str
    """Public address; its last part is the file name."""
    sha256: str
    """SHA-256 of the file, in hex."""
    variable: str
    """Environment variable that may name the file, or a folder that holds it."""

    @property
    def file_name(self) -> str:
        """Published name of the file."""
        return self.url.rsplit("/", 1)[1]

    def find(self, path: Path | str = "") -> Path:
        """Return the file, after a check of its SHA-256.

        The first of these that is set is used: `path` (the file, or a folder that holds it); the environment
        variable (the same); the cache, which is filled from the public address. Raises UserError, with
        address, SHA-256 and place, when the file is missing or is another one.
        """
        if path:
            return self._checked(Path(path), "given as the weights")
        if named := os.environ.get(self.variable):
            return self._checked(Path(named), f"named by {self.variable}")
        try:
            return download(self.url, cache_root() / "weights" / self.file_name, sha256=self.sha256)
        except UserError as error:
            raise UserError(
                f"{str(error).removesuffix('.')}, or name the file in {self.variable}."
            ) from error

    def load(self, path: Path | str = "") -> dict[str, Tensor]:
        """Return the tensors of the file by name, on the CPU; nothing is unpickled. See `find`."""
        file = self.find(path)
        content, _ = read_tensor_file(file)
        state: dict[str, Tensor] = content.get("state_dict", content)
        check_finite(state, file)
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}

    def _checked(self, path: Path, origin: str) -> Path:
        file = path / self.file_name if path.is_dir() else path
        if not file.is_file():
            problem = "is missing"
        elif (found := sha256_of(file)) != self.sha256:
            problem = f"has the SHA-256 {found}"
        else:
            return file
        raise UserError(
            f"{file}, {origin}, {problem}; download {self.url} (SHA-256 {self.sha256}) and put it there, "
            f"or name its place in {self.variable}."
        )


INCEPTION_2015 = PublishedWeights(
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    variable="CM_RAY_INCEPTION_WEIGHTS",
)
"""Inception of 2015-12-05, the network of Heusel et al. 2017, as converted by pytorch-fid."""

TORCHSCRIPT_INCEPTION = PublishedWeights(
    url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    variable="CM_RAY_CLEAN_FID_WEIGHTS",
)
"""The same network as NVIDIA converted it to TorchScript for StyleGAN2-ADA; clean-fid runs it.

The file contains code as well as weights: use `find`, not `load`.
"""

CIFAR_RESNETS = {
    20: PublishedWeights(
        url=_RESNETS + "resnet20-12fca82f.th",
        sha256="12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        variable="CM_RAY_WEIGHTS",
    ),
    56: PublishedWeights(
        url=_RESNETS + "resnet56-4bfd9763.th",
        sha256="4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        variable="CM_RAY_WEIGHTS",
    ),
}
"""CIFAR-10 classifiers of pytorch_resnet_cifar10 (Y. Idelbayev), by depth."""

DINOV2 = {
    shape: PublishedWeights(
        url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{shape}/dinov2_{shape}_pretrain.pth",
        sha256=sha256,
        variable="CM_RAY_DINOV2_WEIGHTS",
    )
    for shape, sha256 in {
        "vits14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        "vitb14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        "vitl14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    }.items()
}
"""DINOv2 without registers (Oquab et al. 2023), by its shape.

The publisher states no SHA-256. These are the ones that programs of others state which pin the files.
"""
